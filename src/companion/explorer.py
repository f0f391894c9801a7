"""The explorer: every number of the book's page *Explorer* at one setting, and what its script needs to compute them.

A `Setting` is where the sliders stand. `Explorer.evaluate` computes a setting through the package's own functions;
`Explorer.model` gives laws, shapes, coefficients and ranges as plain JSON, from which `book/_assets/explorer_model.js`
computes the same numbers in the page. A browser test holds both together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, RECURRENT_GATE_FLOPS, count_prefill, count_step
from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import percentile_interval
from companion.formatting import power_of_ten
from companion.hardware import REFERENCE_HARDWARE, get_hardware, known_hardware
from companion.inference.one_size import middle_context
from companion.inference.runtime_model import RuntimeModel
from companion.laws import LossSurface, optimum
from companion.planner.knowledge import Knowledge, learn, without_name
from companion.planner.request import LAW_CONTEXT
from companion.runs.shape_family import DIFFERENCE_STEP, LARGEST_WIDTH, SMALLEST_WIDTH, FamilyScale

#: In a link: tokens per parameter as the law wants them, for each architecture its own.
OPTIMAL = "optimal"
#: How far a value may pass the end of a range before it counts as outside: data are rounded.
_MARGIN = 1e-3


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


_CONTEXTS = tuple(2**k for k in range(8, 21))
#: The sliders, the one source of their ranges.
CONTROLS: tuple[Control, ...] = (
    Control(
        "train_flops",
        "budget",
        "budget C",
        "FLOP",
        (*(float(f"{digit}e{power}") for power in range(18, 25) for digit in (1, 2, 3, 4, 6, 8)), 1e25),
    ),
    Control("context_length", "context", "context T", "tokens", tuple(map(float, _CONTEXTS))),
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
    """Where the sliders stand; values between the steps of a slider are fine too.

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
        """The setting as it stands behind the # of the page's address."""
        parts = [f"{c.key}={link_value(getattr(self, c.name))}" for c in CONTROLS]
        return "&".join([*parts, f"hardware={self.hardware}"])


def link_value(value: float | None) -> str:
    """A slider's value in a link: 1e21, 8192, optimal."""
    if value is None:
        return OPTIMAL
    return f"{value:g}".replace("e+", "e") if value >= 1e15 or value != int(value) else str(int(value))


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """What is known of every architecture, and the setting that the page opens with.

    `left_out` gives the reason for every architecture of the tables that the page cannot show.
    """

    known: Mapping[str, Knowledge]
    default: Setting = Setting()
    level: float = 0.95
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        runs: pd.DataFrame | None = None,
        timings: pd.DataFrame | None = None,
        *,
        default: Setting | None = None,
        architectures: Sequence[str] | None = None,
        experiment: str | None = None,
        num_resamples: int = 200,
    ) -> "Explorer":
        """The explorer of a run table and a table of timings, by default the paper's (see `companion.planner.learn`).

        The law is that of the table's context length (see `learn`), from all runs or those of one `experiment`.
        `architectures` are by default all that the planner knows. `default` is moved to the nearest steps of the
        sliders; without it the page opens at the context length of the laws. An architecture without an identified law,
        without intervals, or without an optimum at the opening is left out.

        Raises
        ------
        NotApplicable
            if no architecture is left; the message says why for each.
        """
        known = learn(runs, timings, architectures, experiment=experiment, num_resamples=num_resamples)
        start = default or Setting()
        if default is None and (context := _law_context(known)) is not None:
            start = replace(start, context_length=min(max(context, _CONTEXTS[0]), _CONTEXTS[-1]))
        moved = {
            c.name: type(value)(c.nearest(value)) for c in CONTROLS if (value := getattr(start, c.name)) is not None
        }
        explorer = cls(known=known, default=replace(start, **moved))
        left_out = dict(known.left_out)
        for name, knowledge in known.items():
            if knowledge.bootstrap.withheld:
                left_out[name] = f"{name}: no intervals: {knowledge.bootstrap.withheld}"
                continue
            try:
                explorer._evaluate_one(knowledge, explorer.default)
            except InputError as error:
                left_out[name] = str(error)
        shown = {name: knowledge for name, knowledge in known.items() if name not in left_out}
        if not shown:
            raise NotApplicable("; ".join(without_name(name, reason) for name, reason in left_out.items()))
        return replace(explorer, known=shown, left_out=left_out)

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What a reader must know before any number, with its kind: `bad` for what is missing, `open` for choices."""
        missing = [("bad", f"{without_name(name, reason)} (left out)") for name, reason in self.left_out.items()]
        return missing + [("open", f"{name}: {note}") for name, one in self.known.items() for note in one.notes]

    def evaluate(self, setting: Setting | None = None) -> dict[str, dict[str, Any]]:
        """Everything the page shows at a setting, by architecture.

        Returns
        -------
        dict with
            `numbers`: `num_params`, `num_tokens`, `tokens_per_param`, `loss` (nats per token) of the model trained at
            C, T and M; the same with the prefix `optimal_` for the least loss at C and T; of the first model
            `ttft_s`, `step_time_s` and their rooflines `ttft_roofline_s`, `step_time_roofline_s` (seconds),
            `memory_bytes` (the larger of prefill's and step's), of these `weight_bytes`, and `cache_bytes` at the end
            of the prompt.
            `intervals`: of the losses, the optimum and the times. Losses and optimum: the law refitted to resampled
            runs; times: resampled coefficients and the scatter of the timings about the fit.
            `fits`: whether the memory suffices.
            `outside`: `{of, name, value, low, high}` of every value that leaves the range of the data, where `of` is
            `loss`, `optimum`, `ttft` or `step_time`.
            `below_roofline`: `ttft` or `step_time` where the runtime model, far from its timings, promises more than
            the hardware can do.

        Raises
        ------
        InputError
            if no width from 16 to 2^19 has the asked cost.
        """
        chosen = setting or self.default
        return {name: self._evaluate_one(knowledge, chosen) for name, knowledge in self.known.items()}

    def _evaluate_one(self, knowledge: Knowledge, setting: Setting) -> dict[str, Any]:
        scale = FamilyScale(family=knowledge.family, context_length=setting.context_length)
        law, flops = knowledge.fit.law, setting.train_flops
        best = optimum(law, scale, flops)
        resampled = optimum(knowledge.bootstrap.laws, scale, flops)
        if setting.tokens_per_param is None:
            size, tokens = float(best.num_params[0]), float(best.num_tokens[0])
        else:
            size = float(scale.num_params(flops, setting.tokens_per_param))
            tokens = size * setting.tokens_per_param
            if not math.isclose(float(scale.train_flops(size, setting.tokens_per_param)), flops, rel_tol=1e-6):
                raise InputError(
                    f"explorer: no {knowledge.architecture} with d_model from {SMALLEST_WIDTH:g} to {LARGEST_WIDTH:g} "
                    f"costs {flops:g} FLOP at {setting.tokens_per_param:g} tokens per parameter"
                )
        shapes = knowledge.family.at(size)
        where = (shapes, setting.context_length, setting.batch_size, setting.hardware)
        passes = [count(*where[:3]) for count in (count_prefill, count_step)]
        numbers = {
            "num_params": size,
            "num_tokens": tokens,
            "tokens_per_param": tokens / size,
            "loss": float(law.predict(size, tokens)),
            **{f"optimal_{name}": float(getattr(best, name)[0]) for name in _OF_OPTIMUM},
            "ttft_s": float(knowledge.ttft.predict(*where)),
            "ttft_roofline_s": float(passes[0].roofline(setting.hardware).seconds),
            "step_time_s": float(knowledge.step_time.predict(*where)),
            "step_time_roofline_s": float(passes[1].roofline(setting.hardware).seconds),
            "memory_bytes": float(max(counted.memory.total for counted in passes)),
            "weight_bytes": float(passes[0].memory.weights),
            "cache_bytes": float(passes[1].memory.cache),
        }
        samples = {
            "loss": knowledge.bootstrap.laws.predict(size, tokens),
            **{f"optimal_{name}": getattr(resampled, name) for name in _OF_OPTIMUM},
            "ttft_s": knowledge.ttft.samples(*where),
            "step_time_s": knowledge.step_time.samples(*where),
        }
        intervals = {name: list(percentile_interval(values, self.level)) for name, values in samples.items()}
        fits = not any(counted.fit_message(setting.hardware) for counted in passes)
        outside = _outside(_ranges(knowledge), _values(numbers, setting))
        impossible = [of for of in ("ttft", "step_time") if numbers[f"{of}_s"] < numbers[f"{of}_roofline_s"]]
        return {
            "numbers": numbers,
            "intervals": intervals,
            "fits": fits,
            "outside": outside,
            "below_roofline": impossible,
        }

    def model(self) -> dict[str, Any]:
        """All that the page's script needs, as plain dicts, lists, text and finite numbers."""
        convention = {name: value for name, value in vars(PAPER).items() if isinstance(value, int | float)}
        return {
            "architectures": [_architecture(knowledge) for knowledge in self.known.values()],
            "hardware": [vars(entry) for entry in known_hardware().values()],
            "convention": convention,
            "precision": asdict(BF16),
            "recurrent_gate_flops": RECURRENT_GATE_FLOPS,
            "search": {"smallest": SMALLEST_WIDTH, "largest": LARGEST_WIDTH, "difference_step": DIFFERENCE_STEP},
            "margin": _MARGIN,
            "level": self.level,
            "law_context": _law_context(self.known),
            "notes": self.notes,
            "controls": [
                {name: getattr(control, name) for name in ("name", "key", "label")}
                | {"steps": [{"value": v, "link": link_value(v), "text": control.text(v)} for v in control.steps]}
                for control in CONTROLS
            ],
            "optimal": OPTIMAL,
            "default": asdict(self.default),
        }


def _law_context(known: Mapping[str, Knowledge]) -> int | None:
    """The context length of most laws; None where no table names one."""
    contexts = [knowledge.law_context for knowledge in known.values() if knowledge.law_context is not None]
    return max(contexts, key=contexts.count) if contexts else None


_OF_OPTIMUM = ("num_params", "num_tokens", "tokens_per_param", "loss")


def _ranges(knowledge: Knowledge) -> dict[str, dict[str, list[float]]]:
    """Least and largest value that the data hold of everything a number depends on, by what the number is."""
    limits = knowledge.ranges.limits
    trained = {name: list(limits[name]) for name in ("num_params", "num_tokens", "tokens_per_param", "train_flops")}
    if contexts := knowledge.ranges.contexts:
        trained["context_length"] = [float(contexts[0]), float(contexts[-1])]
    return {
        "loss": trained,
        "optimum": {**trained},
        "ttft": _timed(knowledge.ttft, knowledge.ttft.rows["prefill_length"]),
        "step_time": _timed(knowledge.step_time, middle_context(knowledge.step_time.rows)),
    }


def _timed(model: RuntimeModel, context: Any) -> dict[str, list[float]]:
    """The ranges behind `RuntimeModel.outside`."""
    batch, length = model.rows["batch_size"].to_numpy(dtype=float), np.asarray(context, dtype=float)
    columns = {
        "num_params": model.rows["num_params"].to_numpy(dtype=float),
        "context_length": length,
        "batch_size": batch,
        "batch_tokens": batch * length,
    }
    return {name: [float(values.min()), float(values.max())] for name, values in columns.items()}


def _values(numbers: Mapping[str, float], setting: Setting) -> dict[str, dict[str, float]]:
    """What `_ranges` bounds, at one setting."""
    given = {"train_flops": setting.train_flops, "context_length": float(setting.context_length)}
    names = ("num_params", "num_tokens", "tokens_per_param")
    served = {
        "num_params": numbers["num_params"],
        "context_length": float(setting.context_length),
        "batch_size": float(setting.batch_size),
        "batch_tokens": float(setting.context_length * setting.batch_size),
    }
    return {
        "loss": {name: numbers[name] for name in names} | given,
        "optimum": {name: numbers[f"optimal_{name}"] for name in names} | given,
        "ttft": served,
        "step_time": served,
    }


def _outside(
    ranges: Mapping[str, Mapping[str, list[float]]], values: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    found = []
    for of, limits in ranges.items():
        for name, (low, high) in limits.items():
            value = values[of][name]
            if value > high * (1 + _MARGIN) or value < low * (1 - _MARGIN):
                found.append({"of": of, "name": name, "value": value, "low": low, "high": high})
    return found


def _architecture(knowledge: Knowledge) -> dict[str, Any]:
    samples = knowledge.bootstrap.samples[list(LossSurface.PARAMETERS)].dropna()
    return {
        "name": knowledge.architecture,
        "law": {name: float(getattr(knowledge.fit.law, name)) for name in LossSurface.PARAMETERS},
        "laws": {name: samples[name].tolist() for name in LossSurface.PARAMETERS},
        "family": asdict(knowledge.family),
        "ttft": _runtime(knowledge.ttft),
        "step_time": _runtime(knowledge.step_time),
        "ranges": _ranges(knowledge),
        "law_context": knowledge.law_context,
    }


def _runtime(model: RuntimeModel) -> dict[str, Any]:
    return {
        "hardware": model.hardware.name,
        "terms": [{"name": term.name, "kind": term.kind} for term in model.terms],
        "coefficients": model.coefficients.tolist(),
        "resamples": model.resamples.tolist(),
        "scatter": model.scatter(len(model.resamples)).tolist(),
    }
