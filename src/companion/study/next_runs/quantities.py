"""What a reader may want to know of a law, with its exact slope in the law's parameters.

A quantity is a number read off a law: an exponent, the floor, the loss of a run, the compute-optimal size. Its slope in
the solver parameters is what the delta method needs. Positive quantities are treated in logarithms, so that their
intervals are factors.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from companion.errors import InputError
from companion.formatting import count, power_of_ten, quoted
from companion.laws import LossSurface, optimum
from companion.laws.base import Array, Law
from companion.laws.optimum import Cost, FlopsPerParamAndToken
from companion.numeric import Values

#: Step of central differences in the solver parameters, and how far two steps may disagree.
_STEP, _AGREE = 1e-4, 1e-3
#: How a quantity is written, for messages.
FORMS = "optimum@C, optimal-loss@C, loss@N,D, exponent, or a parameter such as alpha or E"
#: Compute, sizes and numbers of tokens beyond which no law of the loss means anything.
_LARGEST = 1e40


class Truth(Protocol):
    """Where losses come from; need not be a law that can be fitted."""

    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """Mean loss in nats per token."""


class Quantity(ABC):
    """A number read off a law.

    `label` names it; `in_logs` says whether its uncertainty is that of its logarithm.
    """

    in_logs: ClassVar[bool] = True

    @property
    @abstractmethod
    def label(self) -> str:
        """Name for tables and messages."""

    @abstractmethod
    def value(self, law: Truth) -> float:
        """The number itself.

        Raises
        ------
        InputError
            if the law does not have it.
        """

    @abstractmethod
    def slope(self, law: type[Law], theta: Array) -> Array:
        """Derivative in the solver parameters (p,) of plain logs: of ln(value) where `in_logs`, else of the value."""

    def error_of(self, law: Truth, truth: float) -> float:
        """How far a law's value lies from a true one: ln(value/truth) where `in_logs`, else the difference."""
        value = self.value(law)
        return float(np.log(value / truth)) if self.in_logs else float(value - truth)

    def interval(self, value: float, half_width: float) -> tuple[float, float]:
        """Ends of an interval about a value, with the half width of the scale that `in_logs` names."""
        if not self.in_logs:
            return value - half_width, value + half_width
        with np.errstate(over="ignore"):
            return float(value * np.exp(-half_width)), float(value * np.exp(half_width))


@dataclass(frozen=True)
class ParameterValue(Quantity):
    """A parameter of the law by its name."""

    name: str

    @property
    def label(self) -> str:
        """The parameter's name."""
        return self.name

    def value(self, law: Truth) -> float:
        """The parameter."""
        _fitted(law, self.label).index(self.name)
        return float(getattr(law, self.name))

    def slope(self, law: type[Law], theta: Array) -> Array:
        """One in the parameter itself; an exponent, which the solver moves as it is, is turned into its logarithm."""
        at = law.index(self.name)
        result = np.zeros(len(theta))
        result[at] = 1.0 if self.name in law.LOGARITHMIC else 1 / theta[at]
        return result


@dataclass(frozen=True)
class SizeExponent(Quantity):
    """The exponent beta / (alpha + beta) of N* over C for C = k N D (arXiv 2203.15556, equation 4)."""

    in_logs: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name for tables."""
        return "size exponent"

    def value(self, law: Truth) -> float:
        """beta / (alpha + beta)."""
        _require_surface(type(law), self.label)
        assert isinstance(law, LossSurface)
        return float(law.beta / (law.alpha + law.beta))

    def slope(self, law: type[Law], theta: Array) -> Array:
        """In alpha and beta."""
        _require_surface(law, self.label)
        alpha, beta = theta[law.index("alpha")], theta[law.index("beta")]
        result = np.zeros(len(theta))
        result[law.index("alpha")] = -beta / (alpha + beta) ** 2
        result[law.index("beta")] = alpha / (alpha + beta) ** 2
        return result


@dataclass(frozen=True)
class LossOf(Quantity):
    """The law's loss of a run of N parameters and D tokens: the mean of many seeds."""

    num_params: float
    num_tokens: float

    @property
    def label(self) -> str:
        """Name for tables."""
        return f"loss at N = {count(self.num_params)}, D = {count(self.num_tokens)}"

    def value(self, law: Truth) -> float:
        """Nats per token."""
        return float(law.predict(self.num_params, self.num_tokens))

    def slope(self, law: type[Law], theta: Array) -> Array:
        """The law's own gradient of log L."""
        return _log_loss_slope(law, theta, self.num_params, self.num_tokens)


@dataclass(frozen=True)
class OptimalSize(Quantity):
    """N* at a compute C, under any cost of training."""

    train_flops: float
    cost: Cost = field(default_factory=FlopsPerParamAndToken)

    @property
    def label(self) -> str:
        """Name for tables."""
        return f"optimal N at C = {power_of_ten(self.train_flops)}"

    def value(self, law: Truth) -> float:
        """Parameters."""
        return float(optimum(_fitted(law, self.label), self.cost, self.train_flops).num_params[0])

    def slope(self, law: type[Law], theta: Array) -> Array:
        """In closed form for `LossSurface` and C = k N D, else by central differences that are checked."""
        if issubclass(law, LossSurface) and isinstance(self.cost, FlopsPerParamAndToken):
            return self._closed_form(law, theta)
        return checked_differences(
            lambda laws: np.log(optimum(laws, self.cost, self.train_flops).num_params), law, theta
        )

    def _closed_form(self, law: type[Law], theta: Array) -> Array:
        at = {name: law.index(name) for name in ("A", "B", "alpha", "beta")}
        a, b, alpha, beta = (theta[index] for index in at.values())
        product = np.log(self.train_flops / self.cost.k)  # type: ignore[attr-defined]
        total = alpha + beta
        log_size = (np.log(alpha) + a - np.log(beta) - b + beta * product) / total
        slopes = {"A": 1.0, "B": -1.0, "alpha": 1 / alpha - log_size, "beta": product - 1 / beta - log_size}
        result = np.zeros(len(theta))
        for name, slope in slopes.items():
            result[at[name]] = slope / total
        return result


@dataclass(frozen=True)
class OptimalLoss(Quantity):
    """The least loss at a compute C, under any cost of training."""

    train_flops: float
    cost: Cost = field(default_factory=FlopsPerParamAndToken)

    @property
    def label(self) -> str:
        """Name for tables."""
        return f"least loss at C = {power_of_ten(self.train_flops)}"

    def value(self, law: Truth) -> float:
        """Nats per token."""
        return float(optimum(_fitted(law, self.label), self.cost, self.train_flops).loss[0])

    def slope(self, law: type[Law], theta: Array) -> Array:
        """The law's own gradient at the optimum: moving along the line of equal compute changes no loss there."""
        best = optimum(law.from_theta(theta), self.cost, self.train_flops)
        return _log_loss_slope(law, theta, float(best.num_params[0]), float(best.num_tokens[0]))


def checked_differences(function: Any, law: type[Law], theta: Array) -> Array:
    """Central differences (p,) in the solver parameters of a function that takes many laws at once and gives (R,).

    Raises
    ------
    InputError
        if the differences of two steps disagree: then the slope means nothing.
    """
    found = []
    for step in (_STEP, _STEP / 2):
        moves = step * np.eye(len(theta))
        values = function(law.from_theta(np.concatenate([theta + moves, theta - moves])))
        found.append((values[: len(theta)] - values[len(theta) :]) / (2 * step))
    size = np.abs(found[1]).max()
    if not np.abs(found[0] - found[1]).max() <= _AGREE * max(size, 1e-12):
        raise InputError(f"{law.__name__}: the quantity has no smooth slope in the parameters of this law")
    return np.asarray(found[1] + (found[1] - found[0]) / 3)  # Richardson


def parse_quantity(text: str, cost: Cost | None = None) -> Quantity:
    """The quantity that a text names: `optimum@1e24`, `optimal-loss@1e24`, `loss@70e9,1.4e12`, `exponent`, `alpha`.

    Parameters
    ----------
    cost
        of training, for the two at an optimum; by default C = 6 N D.

    Raises
    ------
    InputError
        for an unknown name, or numbers that are missing, too many or not positive.

    Examples
    --------
    >>> parse_quantity("loss@70e9,1.4e12").label
    'loss at N = 70.0B, D = 1.40T'
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> f"{parse_quantity('optimum@1e24').value(law):.3g}"
    '4.13e+10'
    """
    name, separator, rest = text.strip().partition("@")
    numbers = [_number(part, text) for part in rest.split(",")] if separator else []
    line: Cost = FlopsPerParamAndToken() if cost is None else cost
    wanted = {"optimum": 1, "optimal-loss": 1, "loss": 2}.get(name, 0)
    if len(numbers) != wanted:
        raise InputError(f"quantity {quoted(text)}: {name or 'it'} takes {wanted} numbers after @; known: {FORMS}")
    if name == "optimum":
        return OptimalSize(numbers[0], line)
    if name == "optimal-loss":
        return OptimalLoss(numbers[0], line)
    if name == "loss":
        return LossOf(*numbers)
    if name in ("exponent", "size-exponent"):
        return SizeExponent()
    if not name.isidentifier() or name not in {each for law in Law.__subclasses__() for each in law.PARAMETERS}:
        raise InputError(f"quantity {quoted(text)} is not known; known: {FORMS}")
    return ParameterValue(name)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"quantity {quoted(whole)}: {quoted(text)} is not a number; known: {FORMS}") from None
    if not 0 < value < _LARGEST:
        raise InputError(f"quantity {quoted(whole)}: {value:g} is not between 0 and {_LARGEST:g}")
    return value


def _log_loss_slope(law: type[Law], theta: Array, num_params: float, num_tokens: float) -> Array:
    place = np.log([num_params]), np.log([num_tokens])
    return np.asarray(law.expand(theta[None], *place).gradient[0, 0])


def _fitted(law: Truth, label: str) -> Law:
    """The same, for what only a law that can be fitted has."""
    if not isinstance(law, Law):
        raise InputError(f"{label}: {type(law).__name__} has none: it is not a law that can be fitted")
    return law


def _require_surface(law: type, label: str) -> None:
    if not issubclass(law, LossSurface):
        raise InputError(f"{label}: {law.__name__} has none; only LossSurface balances a term in N with one in D")
