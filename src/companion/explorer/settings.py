"""Positions of the explorer's sliders: their steps, a setting, and its link."""

import math
from dataclasses import dataclass

from companion.errors import InputError
from companion.formatting import power_of_ten
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.planner.request import LAW_CONTEXT

#: In a link: compute-optimal tokens per parameter, separately for each architecture.
OPTIMAL = "optimal"


@dataclass(frozen=True)
class Control:
    """One slider: field of a `Setting`, key in a link, label, unit, and the values it stops at, ascending."""

    name: str
    key: str
    label: str
    unit: str
    steps: tuple[float, ...]

    def text(self, value: float) -> str:
        """A value with its unit: 6×10²⁰ FLOP, 8,192 tokens."""
        number = power_of_ten(value) if value >= 1e15 else f"{value:,g}" if value < 1e6 else f"{value:,.0f}"
        unit = self.unit[:-1] if value == 1 and self.unit.endswith("s") else self.unit
        return f"{number} {unit}".strip()

    def nearest(self, value: float) -> float:
        """The step next to a value, on a logarithmic scale."""
        return min(self.steps, key=lambda step: abs(math.log(step / value)))


CONTEXTS = tuple(2**k for k in range(8, 21))
#: The sliders, the one source of their ranges.
CONTROLS: tuple[Control, ...] = (
    Control(
        "train_flops",
        "budget",
        "budget C",
        "FLOP",
        (*(float(f"{digit}e{power}") for power in range(18, 25) for digit in (1, 2, 3, 4, 6, 8)), 1e25),
    ),
    Control("context_length", "context", "context T", "tokens", tuple(map(float, CONTEXTS))),
    Control(
        "tokens_per_param",
        "ratio",
        "tokens per parameter M",
        "",
        tuple(
            map(float, (2, 3, 5, 8, 11, 15, 22, 30, 44, 60, 80, 110, 150, 220, 300, 400, 550, 800, 1100, 1500, 2200))
        ),
    ),
    Control("batch_size", "batch", "batch B", "sequences", tuple(float(2**k) for k in range(11))),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Positions of the sliders; values between the steps of a slider are fine too.

    Parameters
    ----------
    train_flops
        C in FLOP.
    context_length
        T in tokens: of training, of the prompt, and of the context of a step.
    tokens_per_param
        M = D/N of the model that is trained and served; None takes the compute-optimal one of each architecture.
    batch_size
        sequences served at once.
    hardware
        a name of `data/hardware.csv`.

    Raises
    ------
    InputError
        for a value outside the range of its slider, a context or batch that is not whole, unknown hardware.
    """

    train_flops: float = 1e21
    context_length: int = LAW_CONTEXT
    tokens_per_param: float | None = 22.0
    batch_size: int = 8
    hardware: str = REFERENCE_HARDWARE

    def __post_init__(self) -> None:
        get_hardware(self.hardware)
        for control in CONTROLS:
            value = getattr(self, control.name)
            if value is None and control.name == "tokens_per_param":
                continue
            low, high = control.steps[0], control.steps[-1]
            if not isinstance(value, int | float) or not low <= value <= high:
                raise InputError(f"explorer: {control.name} {value!r} is not a number from {low:g} to {high:g}")
            if control.name in ("context_length", "batch_size") and value != int(value):
                raise InputError(f"explorer: {control.name} {value} is not a whole number")

    @property
    def link(self) -> str:
        """The setting as written after the # of the page's address."""
        parts = [f"{c.key}={link_value(getattr(self, c.name))}" for c in CONTROLS]
        return "&".join([*parts, f"hardware={self.hardware}"])


def link_value(value: float | None) -> str:
    """A slider's value in a link.

    Examples
    --------
    >>> link_value(1e21), link_value(8192), link_value(None)
    ('1e21', '8192', 'optimal')
    """
    if value is None:
        return OPTIMAL
    return f"{value:g}".replace("e+", "e") if value >= 1e15 or value != int(value) else str(int(value))
