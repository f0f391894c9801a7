"""The public side of a laboratory, `lab.json`: budget, target, limits, and what may be asked."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from companion.errors import InputError
from companion.formatting import listed, power_of_ten, quoted, significant
from companion.study.laboratory.chance import canonical, is_number
from companion.study.laboratory.training_rules import TrainingRules, training_rules_from

VERSION = 1
UNITS = ("flops", "gpu_hours")
SCHEDULES = ("cosine", "wsd", "constant")
ARCHITECTURES = ("transformer", "xlstm")
#: Architectures that a world has; the last one is an option.
ALL_ARCHITECTURES = ("transformer", "xlstm", "hybrid")
#: What the rules say of the law, by the kind of world.
LAWS = {
    "chinchilla": "E + A N^-alpha + B D^-beta for each architecture",
    "paper": "E + (A N^-alpha + B D^-beta)^gamma for each architecture",
    "misfit": "close to E + A N^-alpha + B D^-beta for each architecture; a further, slower term is possible",
}
#: Names of backends that come with the package: a simulated world, and models that are trained.
SIMULATOR, TRAINING = "simulator", "training"
#: What stands for a law where runs are trained, and what the rules say of it.
TRAINED = "trained"
TRAINED_IN_WORDS = "nobody knows it: the runs are trained"
#: Smallest and largest value of every field that has a range.
LIMITS: dict[str, tuple[float, float]] = {
    "num_params": (1e6, 1e11),
    "num_tokens": (1e6, 1e13),
    "learning_rate": (1e-6, 1.0),
    "batch_size_seqs": (8, 4096),
    "train_steps": (100, 200_000),
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules of one laboratory.

    `budget` is in FLOP or GPU-hours, by `unit`; `target_flops` is C of the run to be predicted, in FLOP; `level` is
    that of the interval to commit; `hardware` is a row of `data/hardware.csv`, for GPU-hours. `law` is a key of `LAWS`.
    `identity` distinguishes laboratories; `student` is the name in a class, else None. `closed`: the folder holds no
    key, and the instructor answers. `backend` is `simulator`, `training` or the name of another one; `training` says
    what is trained and is None elsewhere; `law` is then `trained`.

    Raises
    ------
    InputError
        if a value cannot be.

    Examples
    --------
    >>> Rules(budget=1e18).unit
    'flops'
    >>> Rules(budget=-1.0)
    Traceback (most recent call last):
        ...
    companion.errors.InputError: budget -1 is not a positive finite number
    """

    unit: str = "flops"
    budget: float = 1e19
    target_flops: float = 1e20
    context_length: int = 2048
    architectures: tuple[str, ...] = ARCHITECTURES
    schedules: tuple[str, ...] = SCHEDULES
    limits: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(LIMITS))
    law: str = "chinchilla"
    level: float = 0.9
    hardware: str = "h100-sxm"
    identity: str = "0" * 16
    student: str | None = None
    closed: bool = False
    backend: str = SIMULATOR
    version: int = VERSION
    training: TrainingRules | None = None

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InputError(f"version {quoted(self.version)}: this package reads laboratories of version {VERSION}")
        if self.unit not in UNITS:
            raise InputError(f"unit {quoted(self.unit)} is not one of {listed(UNITS)}")
        for name in ("budget", "target_flops", "context_length"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                raise InputError(f"{name} {quoted(value)} is not a positive finite number")
        if not (is_number(self.level) and 0.5 <= self.level < 1):
            raise InputError(f"level {quoted(self.level)} is not from 0.5 to below 1")
        self._check_law()
        if not self.architectures or set(self.architectures) - set(ALL_ARCHITECTURES):
            raise InputError(f"architectures {listed(self.architectures)}: there are {listed(ALL_ARCHITECTURES)}")
        if not self.schedules or set(self.schedules) - set(SCHEDULES):
            raise InputError(f"schedules {listed(self.schedules)}: there are {listed(SCHEDULES)}")

    def _check_law(self) -> None:
        """A law that is known, or models that are trained."""
        if (self.backend == TRAINING) != (self.training is not None):
            raise InputError(
                f"training: the backend {quoted(self.backend)} needs {'it' if not self.training else 'none'}"
            )
        if self.training is not None and self.law != TRAINED:
            raise InputError(f"law {quoted(self.law)}: runs that are trained have no law but {TRAINED!r}")
        if self.training is None and self.law not in LAWS:
            raise InputError(f"law {quoted(self.law)} is not one of {listed(LAWS)}")

    @property
    def law_in_words(self) -> str:
        """What a reader may know of the law."""
        return TRAINED_IN_WORDS if self.training is not None else LAWS[self.law]

    def as_dict(self) -> dict[str, Any]:
        """What `lab.json` holds; without `training` where nothing is trained."""
        values = asdict(self)
        training = values.pop("training")
        if training is not None:
            values["training"] = training | {"sizes": list(training["sizes"])}
        return values | {
            "architectures": list(self.architectures),
            "schedules": list(self.schedules),
            "limits": {name: list(ends) for name, ends in self.limits.items()},
            "law_in_words": self.law_in_words,
        }

    def model_size(self, architecture: str, num_params: int) -> int:
        """N of the run that an ask for N parameters gets: the nearest model that there is, where models are trained."""
        return num_params if self.training is None else self.training.num_params(architecture, num_params)

    def flops_per_token(self, architecture: str, num_params: float) -> float:
        """Training FLOP per token: 6·N of a simulated run, those of the accounting of a model that is trained."""
        if self.training is None:
            return 6.0 * num_params
        return self.training.flops_per_token(architecture, num_params, self.context_length)

    def fingerprint(self) -> str:
        """SHA-256 of the rules: the first entry of a ledger holds it, so that rules cannot change afterwards."""
        return hashlib.sha256(canonical(self.as_dict()).encode("ascii")).hexdigest()

    def amount(self, value: float) -> str:
        """A cost in the unit of the budget, as text: `9.2×10¹⁸ FLOP`, `3.20 GPU-hours`."""
        return f"{power_of_ten(value, 3)} FLOP" if self.unit == "flops" else f"{significant(value)} GPU-hours"


def rules_from(read: Any, source: str) -> Rules:
    """The rules in what a `lab.json` holds.

    Raises
    ------
    InputError
        one line that begins with `source` and names the field at fault.

    Examples
    --------
    >>> rules_from(Rules().as_dict(), "lab.json") == Rules()
    True
    """
    if not isinstance(read, dict):
        raise InputError(f"{source}: is not an object with the rules of a laboratory")
    if (version := read.get("version", VERSION)) != VERSION:  # first: what else differs follows from it
        raise InputError(
            f"{source}: version {quoted(version)}: this package reads laboratories of version {VERSION}; "
            "a newer package made this one"
        )
    values = {name: value for name, value in read.items() if name != "law_in_words"}
    values.setdefault("training", None)
    names = {each.name for each in fields(Rules)}
    if fault := sorted(names ^ set(values)):
        raise InputError(f"{source}: field {quoted(fault[0])} is {'missing' if fault[0] in names else 'not known'}")
    for name in ("unit", "law", "hardware", "identity", "backend"):
        if not isinstance(values[name], str):
            raise InputError(f"{source}: {name} {quoted(values[name])} is not text")
    for name in ("architectures", "schedules"):
        if not (isinstance(values[name], list) and all(isinstance(each, str) for each in values[name])):
            raise InputError(f"{source}: {name} is not a list of names")
        values[name] = tuple(values[name])
    if not isinstance(values["closed"], bool) or not isinstance(values["student"], str | None):
        raise InputError(f"{source}: closed must be true or false, and student a name or null")
    if not isinstance(values["context_length"], int):
        raise InputError(f"{source}: context_length {quoted(values['context_length'])} is not a whole number")
    values["limits"] = _limits(values["limits"], source)
    try:
        if values["training"] is not None:
            values["training"] = training_rules_from(values["training"])
        found = Rules(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if read.get("law_in_words") != found.law_in_words:
        raise InputError(f"{source}: law_in_words is not that of the law {quoted(found.law)}")
    return found


def _limits(read: Any, source: str) -> dict[str, tuple[float, float]]:
    if not isinstance(read, dict) or set(read) != set(LIMITS):
        raise InputError(f"{source}: limits must hold {', '.join(LIMITS)}")
    found = {}
    for name in LIMITS:
        ends = read[name]
        if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)) and 0 < ends[0] < ends[1]):
            raise InputError(f"{source}: limits of {name} are not two increasing positive numbers")
        found[name] = (ends[0], ends[1])
    return found
