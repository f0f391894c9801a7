"""What every law of the loss over parameters and tokens has: names, predictions, and what a fit needs of it.

A law is a frozen dataclass whose fields are its parameters: L(N, D) = E + a positive term that falls with N, with D or
with both. Fields may be arrays of one shape (R,): many laws at once, such as the refits of a bootstrap.

A fit moves *solver parameters* theta, shape (R, p), in the order of `PARAMETERS`: the logarithm of the parameters named
in `LOGARITHMIC`, the others as they are. It works with log N and log D less their means (`Shift`), which keeps
prefactors and exponents from being collinear.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.numeric import Array, Values

#: A parameter: a number, or an array of shape (R,) for R laws at once.
#:
#: :meta hide-value:
Parameter = Values


@dataclass(frozen=True)
class Expansion:
    """log L of many laws at n places, with its derivatives in the solver parameters.

    `log_loss` has shape (R, n) and `gradient` (R, n, p). `add_curvature(hessian, weights)` adds the sum over places of
    weights (R, n) times the second derivatives to `hessian` (R, p, p), in place.
    """

    log_loss: Array
    gradient: Array
    add_curvature: Callable[[Array, Array], None]


@dataclass(frozen=True)
class Shift:
    """A prefactor in logarithms that moves when logs are centered: log P -> log P - exponent * mean of log(variable).

    `variable` is 0 for N and 1 for D.
    """

    prefactor: str
    exponent: str
    variable: int


@dataclass(frozen=True)
class Limits:
    """Where the solver lets one of its parameters go.

    A parameter beyond `inner` is on its way out: the fit then tries the bound itself (`companion.fitting.newton`).
    """

    lower: float
    upper: float
    inner: tuple[float, float]


#: E from 1e-6: below, a law has no floor. The lower inner limit is set by the lowest loss of the runs.
FLOOR_LIMITS = Limits(float(np.log(1e-6)), float(np.log(1e3)), (float(np.log(0.05)), float(np.log(1e2))))
#: A prefactor of the centered law: its term at the mean size or number of tokens.
PREFACTOR_LIMITS = Limits(-40.0, 40.0, (-8.0, 15.0))
#: Beyond these exponents a law is a step.
EXPONENT_LIMITS = Limits(1e-3, 10.0, (0.02, 4.0))


class Law(ABC):
    """A law of the loss that `companion.fitting.fit` can fit; `companion.laws.product` is a short example.

    Class attributes
    ----------------
    FORMULA
        in one line of plain text.
    PARAMETERS
        names of the fields, the floor E first.
    LOGARITHMIC
        parameters that the solver moves in logarithms; they are positive.
    LIMITS
        by parameter, in the solver's coordinates.
    SHIFTS
        prefactors that move when logs are centered.
    EXPONENTS
        by exponent: the column (`num_params` or `num_tokens`) whose power it is. A fit says `not identified` where
        the runs leave its sign open.
    FIXABLE
        parameters that a fit may hold at a given value, and between which values.
    """

    FORMULA: ClassVar[str]
    PARAMETERS: ClassVar[tuple[str, ...]]
    LOGARITHMIC: ClassVar[frozenset[str]]
    LIMITS: ClassVar[Mapping[str, Limits]]
    SHIFTS: ClassVar[tuple[Shift, ...]]
    EXPONENTS: ClassVar[Mapping[str, str]]
    FIXABLE: ClassVar[Mapping[str, tuple[float, float]]] = {}

    # ---- what a law must define --------------------------------------------------------------------

    @abstractmethod
    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """Loss in nats per token; N and D broadcast, the last axis over the laws where there are many."""

    @classmethod
    @abstractmethod
    def expand(cls, theta: Array, log_n: Array, log_d: Array) -> Expansion:
        """log L and its derivatives for solver parameters (R, p) at places (n,)."""

    @classmethod
    @abstractmethod
    def grid(cls, fixed: Mapping[str, float]) -> Array:
        """Values of the parameters that L = E + K·h(N, D) is not linear in, shape (G, m): where a fit starts from."""

    @classmethod
    @abstractmethod
    def log_shape(cls, grid: Array, log_n: Array, log_d: Array) -> Array:
        """log h for every row of the grid at places (n,), shape (G, n)."""

    @classmethod
    @abstractmethod
    def from_grid(cls, grid: Array, floor: Array, factor: Array) -> Array:
        """Solver parameters (G, p) for rows of the grid with their best E and K, both (G,)."""

    @classmethod
    def basins(cls, grid: Array) -> Array:
        """A number per row of the grid (G,): rows with different numbers may lead to different minima."""
        return np.zeros(len(grid))

    def log_gain_ratio(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """log of (−dL/d ln D) / (−dL/d ln N): what more tokens gain over what more parameters gain.

        Raises
        ------
        InputError
            for a law that does not define it: `companion.laws.optimum` needs it.
        """
        raise InputError(f"{_words(type(self))}: its class defines no log_gain_ratio, which an optimum needs")

    # ---- what every law has ------------------------------------------------------------------------

    @classmethod
    def log_predictions(cls, theta: Array, log_n: Array, log_d: Array) -> Array:
        """log L for solver parameters (R, p) at places (n,), shape (R, n)."""
        return cls.expand(theta, log_n, log_d).log_loss

    @classmethod
    def index(cls, name: str) -> int:
        """Position of a parameter in theta.

        Raises
        ------
        InputError
            if the law has no such parameter.
        """
        if name not in cls.PARAMETERS:
            raise InputError(f"no parameter {name!r}; there are {', '.join(cls.PARAMETERS)}")
        return cls.PARAMETERS.index(name)

    @classmethod
    def bounds(cls) -> tuple[Array, Array]:
        """Lower and upper ends of the solver's box, each (p,)."""
        limits = [cls.LIMITS[name] for name in cls.PARAMETERS]
        return np.array([each.lower for each in limits]), np.array([each.upper for each in limits])

    @classmethod
    def shifted(cls, theta: Array, center: tuple[float, float], sign: float) -> Array:
        """Theta of plain logs from that of centered ones (sign +1), or back (sign -1), same shape (..., p)."""
        result = theta.copy()
        for shift in cls.SHIFTS:
            at, exponent = cls.index(shift.prefactor), cls.index(shift.exponent)
            result[..., at] += sign * (theta[..., exponent] * center[shift.variable])
        return result

    @classmethod
    def from_theta(cls, theta: Array, fixed: Mapping[str, float] | None = None) -> Self:
        """The law of solver parameters of plain logs, shape (p,), or (R, p) for many laws at once.

        Parameters that a fit holds at a value take exactly that value.
        """
        columns = np.moveaxis(theta, -1, 0)
        values: dict[str, Any] = {}
        for name, column in zip(cls.PARAMETERS, columns, strict=True):
            # 690: a prefactor that float64 can still write
            values[name] = np.exp(np.clip(column, -690, 690)) if name in cls.LOGARITHMIC else column
        values |= dict(fixed or {})
        return cls(**(values if theta.ndim > 1 else {name: float(value) for name, value in values.items()}))

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by name, in the order of `PARAMETERS`."""
        return {name: getattr(self, name) for name in self.PARAMETERS}

    def __len__(self) -> int:
        """How many laws these are: 1, unless the parameters are arrays."""
        return int(np.size(getattr(self, self.PARAMETERS[0])))

    def __iter__(self) -> Iterator[Self]:
        """The laws one by one, each with plain numbers."""
        values = [np.atleast_1d(getattr(self, name)) for name in self.PARAMETERS]
        for row in zip(*values, strict=True):
            yield type(self)(**dict(zip(self.PARAMETERS, map(float, row), strict=True)))

    def part(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The laws of these numbers, of the shape of `rows`."""
        values = {name: np.broadcast_to(value, len(self))[rows] for name, value in self.parameters.items()}
        return type(self)(**values)

    def _require_positive(self, *names: str) -> None:
        """Raise an InputError where a parameter is not positive; NaN in an array marks a refit that failed."""
        for name in names:
            value = getattr(self, name)
            if np.ndim(value) == 0 and not value > 0:
                raise InputError(f"{_words(type(self))}: {name} is {value} and must be positive")
            if np.any(np.asarray(value) <= 0):
                raise InputError(f"{_words(type(self))}: {name} has a value that is not positive")


def law_named(name: str) -> type[Law]:
    """The class of a law by its name, e.g. from a saved fit.

    Raises
    ------
    InputError
        if no class of that name has been imported.

    Examples
    --------
    >>> law_named("LossSurface").FORMULA
    'E + (A N^-alpha + B D^-beta)^gamma'
    """
    laws = {law.__name__: law for law in Law.__subclasses__()}
    if name not in laws:
        raise InputError(f"no law {name!r}; there are {', '.join(sorted(laws))}")
    return laws[name]


def _words(law: type) -> str:
    """`LossSurface` -> `loss surface`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in law.__name__).strip()
