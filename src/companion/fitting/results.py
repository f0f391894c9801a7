"""What every fitted result has in common: one way to ask how certain a number is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from companion.errors import InputError

#: An interval that is not known.
UNKNOWN = (float("nan"), float("nan"))


class Result(ABC):
    """A fitted result: `interval(name)` gives the confidence interval of any of its numbers."""

    @abstractmethod
    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of the interval of one number, by name; (NaN, NaN) where none is known.

        Raises
        ------
        InputError
            if the result has no number of that name.
        """


def check_name(name: str, known: Iterable[str], of: str) -> None:
    """Raise an InputError unless a result has a number of this name.

    Examples
    --------
    >>> check_name("gamma", ("exponent", "prefactor"), "a power law")
    Traceback (most recent call last):
        ...
    companion.errors.InputError: a power law has no parameter 'gamma'; it has exponent, prefactor
    """
    names = tuple(known)
    if name not in names:
        raise InputError(f"{of} has no parameter {name!r}; it has {', '.join(names)}")
