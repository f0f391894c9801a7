"""What a training run is: one frozen `Recipe`, and its identity. No torch.

Two recipes with the same values are the same run, whatever they are called: `run_id` is a hash of the values.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from companion.accounting import count_flops, num_params
from companion.accounting.conventions import PAPER
from companion.architectures import Architecture, make_architecture
from companion.benchmarks.models.models import shapes_of
from companion.errors import InputError
from companion.numeric import Numeric
from companion.study.train.schedule import SCHEDULES, cooldown_steps, schedule_shares

#: Raised when the same values begin to mean another run: identities then change with it.
RECIPE_VERSION = 1
#: Peak rates at `REFERENCE_WIDTH` of `usual_learning_rate`.
REFERENCE_RATES = {"transformer": 3e-3, "xlstm": 3e-3}
REFERENCE_WIDTH = 256
#: Shares of all steps: of the warm-up where a recipe names none, and of the cool-down of `wsd`.
WARMUP_SHARE, COOLDOWN_SHARE = 0.05, 0.2
#: No real run needs a larger number, and float64 still counts its tokens exactly.
_MOST = 2**40


def usual_learning_rate(architecture: Architecture) -> float:
    """A peak learning rate for an architecture: the reference of its name times 256 / `d_model`.

    The rule is the one of maximal update parametrization for hidden matrices under Adam (arXiv 2203.03466, table 3: a
    rate that falls as 1/width keeps updates of the same size), taken as a rule of thumb for all weights. On two
    synthetic sources it is within 0.03 nats (128 tokens, `data/study_runs.csv`) and 0.01 nats (1,024 tokens,
    `data/study_v1024_runs.csv`) of the best of four rates, half to four times as high, at three sizes of both
    architectures (experiment `learning_rate`). A study on other data should try rates around it.

    Raises
    ------
    InputError
        for an architecture without a reference.

    Examples
    --------
    >>> usual_learning_rate(make_architecture("xlstm", d_model=512, n_layers=2, n_heads=4))
    0.0015
    """
    if architecture.name not in REFERENCE_RATES:
        known = ", ".join(REFERENCE_RATES)
        raise InputError(f"learning_rate: no usual rate for {architecture.name!r}, only for {known}: give one")
    return REFERENCE_RATES[architecture.name] * REFERENCE_WIDTH / int(architecture.d_model)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a run computes, and nothing else.

    Attributes
    ----------
    architecture
        shapes of the model, each a number.
    corpus
        name, as `companion.study.corpus.open_corpus` takes it.
    context_length
        T, tokens that the model reads in a sequence.
    batch_size_seqs
        sequences of a step.
    train_steps
        steps of the optimizer.
    learning_rate
        the peak.
    warmup_steps
        steps over which the rate rises to the peak; None: 5 % of all, at least one.
    schedule
        `cosine` or `wsd` (`companion.study.train.schedule`).
    cooldown_share
        share of all steps over which the rate of `wsd` falls; None: 0.2. Other schedules set it to 0.
    final_share
        of the peak, at the last step.
    weight_decay
        of AdamW (decoupled, times the rate), on matrices only.
    betas, epsilon
        of AdamW.
    clip_norm
        gradients of a larger norm (over all weights) are scaled down to it.
    seed
        of the weights at the start.
    held_out_sequences
        sequences of T tokens on which losses are measured.
    evaluations
        how many times the held-out loss is measured besides the end, evenly spread over the steps.

    Raises
    ------
    InputError
        that names the field at fault.

    Examples
    --------
    >>> shapes = {"d_model": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 1024}
    >>> a = make_architecture("transformer", **shapes)
    >>> run = {"corpus": "source", "context_length": 128, "batch_size_seqs": 16, "train_steps": 1000}
    >>> recipe = Recipe(architecture=a, **run, learning_rate=1e-3)
    >>> recipe.num_tokens, recipe.warmup_steps, Recipe.from_dict(recipe.to_dict()) == recipe
    (2048000, 50, True)
    """

    architecture: Architecture
    corpus: str
    context_length: int
    batch_size_seqs: int
    train_steps: int
    learning_rate: float
    warmup_steps: int = None  # type: ignore[assignment]  # never None once made: nor is the share
    schedule: str = "cosine"
    cooldown_share: float = None  # type: ignore[assignment]
    final_share: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    seed: int = 0
    held_out_sequences: int = 256
    evaluations: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, Architecture):
            raise InputError(f"architecture: {type(self.architecture).__name__} is not an architecture")
        if not all(isinstance(shape, int) for shape in self.architecture.shapes().values() if shape is not None):
            raise InputError("architecture: it stands for several sizes at once; a run has one")
        for name in ("corpus", "schedule"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InputError(f"{name}: {getattr(self, name)!r} is not a name")
        self._check_whole()
        self._check_rates()
        self._check_schedule()

    def _check_whole(self) -> None:
        least = {"context_length": 1, "batch_size_seqs": 1, "train_steps": 1, "held_out_sequences": 1}
        for name in (*least, "seed", "evaluations"):
            self._set(name, _whole(getattr(self, name), name, least.get(name, 0)))
        usual = max(1, round(WARMUP_SHARE * self.train_steps))
        self._set("warmup_steps", _whole(usual if self.warmup_steps is None else self.warmup_steps, "warmup_steps", 0))

    def _check_rates(self) -> None:
        for name in ("learning_rate", "epsilon", "clip_norm"):
            self._set(name, _real(getattr(self, name), name, above=0.0))
        self._set("weight_decay", _real(self.weight_decay, "weight_decay", least=0.0))
        self._set("final_share", _real(self.final_share, "final_share", least=0.0, most=1.0))
        betas = self.betas
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise InputError(f"betas: {betas!r} is not a pair of numbers")
        self._set("betas", tuple(_real(beta, "betas", least=0.0, below=1.0) for beta in betas))

    def _check_schedule(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule: {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        share = COOLDOWN_SHARE if self.cooldown_share is None else self.cooldown_share
        share = _real(share, "cooldown_share", least=0.0, most=1.0)
        self._set("cooldown_share", share if self.schedule == "wsd" else 0.0)
        falling = cooldown_steps(self.train_steps, self.cooldown_share)
        if self.warmup_steps + falling > self.train_steps:
            also = f" and {falling} of cool-down" if falling else ""
            raise InputError(
                f"train_steps: {self.train_steps} are fewer than {self.warmup_steps} steps of warm-up{also}; "
                "make more steps, or set warmup_steps"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen; only checks call this

    # ---- its identity ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All values as JSON holds them, every shape of the architecture named."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"architecture": shapes_of(self.architecture), "betas": list(self.betas)}
        return {"recipe_version": RECIPE_VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe of `to_dict`; fields with a default may be left out, `recipe_version` too.

        Raises
        ------
        InputError
            for a field that is missing, unknown or wrong; the message names it.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"recipe: {type(values).__name__} is not an object with fields")
        given = dict(values)
        version = given.pop("recipe_version", RECIPE_VERSION)
        if version != RECIPE_VERSION or isinstance(version, bool):
            raise InputError(f"recipe_version: {version!r} is not {RECIPE_VERSION}, the one that this package runs")
        known = {field.name for field in fields(cls)}
        needed = ("architecture", "corpus", "context_length", "batch_size_seqs", "train_steps", "learning_rate")
        if unknown := [name for name in given if name not in known]:
            raise InputError(
                f"recipe: field {str(unknown[0])[:80]!r} is not known; there are {', '.join(sorted(known))}"
            )
        if missing := [name for name in needed if given.get(name) is None]:
            raise InputError(f"recipe: field {missing[0]!r} is missing")
        return cls(**{**given, "architecture": architecture_from_dict(given["architecture"])})

    @cached_property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of its values as JSON with sorted keys: the name of its files."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()[:16]

    # ---- what follows from it -------------------------------------------------------------------

    @property
    def num_params(self) -> int:
        """N of the model."""
        return int(num_params(self.architecture))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step."""
        return self.context_length * self.batch_size_seqs

    @property
    def num_tokens(self) -> int:
        """D, tokens of all steps."""
        return self.tokens_per_step * self.train_steps

    @property
    def train_flops(self) -> float:
        """C by the accounting convention `paper`; sequences shorter than a chunk of the mLSTM are one chunk."""
        return flops_per_token(self.architecture, self.context_length) * self.num_tokens

    def learning_rate_at(self, step: ArrayLike) -> Numeric:
        """Learning rate of steps numbered from 0."""
        settings = {
            name: getattr(self, name) for name in ("train_steps", "warmup_steps", "final_share", "cooldown_share")
        }
        rates = self.learning_rate * schedule_shares(self.schedule, step, **settings)
        return rates if rates.ndim else float(rates)

    @property
    def evaluation_steps(self) -> list[int]:
        """Numbers of steps after which the held-out loss is measured, the last step included."""
        parts = self.evaluations + 1
        return sorted({max(1, self.train_steps * part // parts) for part in range(1, parts + 1)})


def flops_per_token(architecture: Architecture, context_length: int) -> float:
    """Training FLOPs per token by the convention `paper`; a sequence shorter than a chunk of the mLSTM is one chunk."""
    convention = replace(PAPER, chunk_size=min(PAPER.chunk_size, context_length))
    return float(count_flops(architecture, context_length, convention).train_flops_per_token)


def architecture_from_dict(values: Any) -> Architecture:
    """The architecture of an object with `name` and shapes, as a recipe holds it.

    Raises
    ------
    InputError
        that names what is wrong.

    Examples
    --------
    >>> architecture_from_dict({"name": "xlstm", "d_model": 64, "n_layers": 2, "n_heads": 2}).d_qk
    16
    """
    if not isinstance(values, Mapping):
        raise InputError("architecture: is not an object with a name and shapes")
    given = {key: value for key, value in values.items() if value is not None}
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"architecture: name {name!r} is not text")
    known = {field.name for field in fields(Architecture)}
    for shape, value in given.items():
        if shape not in known:
            raise InputError(
                f"architecture: shape {str(shape)[:80]!r} is not known; there are {', '.join(sorted(known))}"
            )
        if not isinstance(value, int) or not 0 <= value <= _MOST:
            raise InputError(f"architecture: {shape} {_shown(value)} is not a whole number of at most 2^40")
    if missing := [shape for shape in ("d_model", "n_layers", "n_heads") if shape not in given]:
        raise InputError(f"architecture: shape {missing[0]!r} is missing")
    return make_architecture(name, **given)


def canonical_json(values: Any) -> bytes:
    """JSON with sorted keys and without spaces, in ASCII: what identities and checksums are made of."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _shown(value: Any) -> str:
    """A value on one line of a message; in quotes where it would not show."""
    text = str(value)
    return (text if text.isprintable() and text.strip() else repr(text))[:80]


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or not least <= value <= _MOST:
        raise InputError(f"{name}: {_shown(value)} is not a whole number from {least} to 2^40")
    return int(value)


def _real(
    value: Any,
    name: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite number, least ≤ value ≤ most and above < value < below, as float."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{name}: {_shown(value)} is not a number")
    if -1e300 < value < 1e300 and least <= value <= most and above < value < below:
        return float(value) + 0.0  # no negative zero: it would be another identity
    limits = [f"at least {least:g}"] * (least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
    limits += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)
    raise InputError(f"{name}: {_shown(value)} is not a finite number{''.join(f', {each}' for each in limits)}")
