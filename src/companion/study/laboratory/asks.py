"""What a laboratory can be asked: one training run, checked against the rules."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from companion.errors import InputError
from companion.formatting import listed, quoted
from companion.study.laboratory.rules import Rules

#: Fields of an ask that a reader must give; the others have defaults.
REQUIRED = ("architecture", "num_params", "num_tokens", "learning_rate", "batch_size_seqs")
_WHOLE = ("num_params", "num_tokens", "batch_size_seqs", "warmup_steps", "seed")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One run: N parameters, D tokens, peak learning rate, sequences per step, schedule, warm-up steps and seed.

    Examples
    --------
    >>> ask = Ask(architecture="xlstm", num_params=30_000_000, num_tokens=10**9, learning_rate=2e-3, batch_size_seqs=64)
    >>> ask.train_flops
    1.8e+17
    """

    architecture: str
    num_params: int
    num_tokens: int
    learning_rate: float
    batch_size_seqs: int
    schedule: str = "cosine"
    warmup_steps: int | None = None
    seed: int = 0

    @property
    def train_flops(self) -> float:
        """C = 6·N·D (arXiv 2001.08361): what a simulated run costs."""
        return 6.0 * self.num_params * self.num_tokens

    def flops_by(self, rules: Rules) -> float:
        """C in FLOP by the rules: 6·N·D of a simulated run, the count of the accounting of one that is trained."""
        return rules.flops_per_token(self.architecture, self.num_params) * self.num_tokens

    def train_steps(self, context_length: int) -> int:
        """Optimizer steps at a context length."""
        return max(1, round(self.num_tokens / (self.batch_size_seqs * context_length)))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as a ledger holds them."""
        return asdict(self)

    def checked(self, rules: Rules) -> "Ask":
        """The ask as it would be run: whole steps, so that D = sequences · T · steps, and a warm-up in steps.

        Where models are trained, N is that of the nearest size.

        Raises
        ------
        InputError
            that names the field outside the rules, and what the rules allow.

        Examples
        --------
        >>> ask = Ask(architecture="xlstm", num_params=10**7, num_tokens=10**9, learning_rate=2e-3, batch_size_seqs=64)
        >>> ask.checked(Rules()).num_tokens
        999948288
        """
        if self.architecture not in rules.architectures:
            raise InputError(
                f"architecture {quoted(self.architecture)}: the laboratory has {listed(rules.architectures)}"
            )
        if self.schedule not in rules.schedules:
            raise InputError(f"schedule {quoted(self.schedule)}: the laboratory has {listed(rules.schedules)}")
        for name, (low, high) in rules.limits.items():
            if name == "train_steps":
                continue
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} {value:g} is not between {low:g} and {high:g}")
        steps = self.train_steps(rules.context_length)
        low, high = rules.limits["train_steps"]
        if not low <= steps <= high:
            raise InputError(
                f"batch_size_seqs {self.batch_size_seqs}: {self.num_tokens:.4g} tokens would take {steps:,} steps; "
                f"from {low:,.0f} to {high:,.0f} are allowed"
            )
        warmup = max(1, round(0.05 * steps)) if self.warmup_steps is None else self.warmup_steps
        if not 0 <= warmup <= steps // 2:
            raise InputError(f"warmup_steps {warmup}: from 0 to half of the {steps:,} steps is allowed")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed {self.seed} is not between 0 and 2^31 - 1")
        tokens = self.batch_size_seqs * rules.context_length * steps
        return replace(
            self,
            num_params=rules.model_size(self.architecture, self.num_params),
            num_tokens=tokens,
            warmup_steps=warmup,
            learning_rate=float(self.learning_rate),
        )


def ask_from(values: Mapping[str, Any], where: str) -> Ask:
    """The ask of named values, such as a row of a table or an entry of a ledger; empty cells take the defaults.

    Raises
    ------
    InputError
        that begins with `where` and names the field: missing, unknown or not of its type.

    Examples
    --------
    >>> row = {"architecture": "xlstm", "num_params": 3e7, "num_tokens": 1e9, "learning_rate": 2e-3}
    >>> ask_from(row, "row 2")
    Traceback (most recent call last):
        ...
    companion.errors.InputError: row 2: batch_size_seqs is missing
    >>> row["batch_size_seqs"] = 64
    >>> ask_from(row, "row 2").num_params
    30000000
    """
    given = {name: value for name, value in values.items() if not _empty(value)}
    if unknown := [name for name in given if name not in Ask.__dataclass_fields__]:
        raise InputError(f"{where}: no field {quoted(unknown[0])}; there are {', '.join(Ask.__dataclass_fields__)}")
    if missing := [name for name in REQUIRED if name not in given]:
        raise InputError(f"{where}: {missing[0]} is missing")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("architecture", "schedule"):
            if not isinstance(value, str):
                raise InputError(f"{where}: {name} {quoted(value)} is not text")
            read[name] = value.strip().lower()
        else:
            read[name] = _number(name, value, where)
    return Ask(**read)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value == ""


def _number(name: str, value: Any, where: str) -> float | int:
    """A finite number; a whole one where the field counts something."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {name} {quoted(value)} is not a number") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: {name} {quoted(value)} is not finite")
    if name not in _WHOLE:
        return number
    if number != round(number) or abs(number) > 2**53:
        raise InputError(f"{where}: {name} {quoted(value)} is not a whole number of at most 2^53")
    return int(number)
