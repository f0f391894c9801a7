"""A prediction and its commitment: what cannot be changed once it is in the ledger."""

import hashlib
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from companion.errors import InputError
from companion.formatting import quoted
from companion.study.laboratory.asks import Ask, ask_from
from companion.study.laboratory.chance import canonical, is_number
from companion.study.laboratory.rules import Rules

#: A target run may cost this share more than the target: whole steps do not fit it exactly.
TOLERANCE = 1e-3
#: Nats per token above which nothing is a loss of a language model.
_MOST_LOSS = 20.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The run chosen for the target, and its predicted loss with an interval, in nats per token."""

    ask: Ask
    loss: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are hashed."""
        return {"ask": self.ask.as_dict(), "loss": self.loss, "low": self.low, "high": self.high}

    def checked(self, rules: Rules) -> "Prediction":
        """The prediction with its ask as it would be run.

        Raises
        ------
        InputError
            if the interval does not hold the loss, a loss cannot be, or the run breaks the rules or costs more than
            the target.
        """
        if not all(0 < value < _MOST_LOSS for value in (self.loss, self.low, self.high)):
            raise InputError(
                f"loss {self.loss:g}, low {self.low:g}, high {self.high:g}: all must be above 0 and "
                f"below {_MOST_LOSS:g} nats per token"
            )
        if not (self.low <= self.loss <= self.high and self.low < self.high):
            raise InputError(f"low {self.low:g} and high {self.high:g} must hold the loss {self.loss:g} between them")
        ask = self.ask.checked(rules)
        cost = ask.flops_by(rules)
        if cost > (1 + TOLERANCE) * rules.target_flops:
            how = " (6 N D)" if rules.training is None else ""
            raise InputError(
                f"the run costs {cost:.4g} FLOP{how}, the target is {rules.target_flops:g}: take fewer "
                "num_params or num_tokens"
            )
        return Prediction(ask=ask, loss=float(self.loss), low=float(self.low), high=float(self.high))


def tokens_within(target_flops: float, num_params: float, batch_size_seqs: int, context_length: int) -> int:
    """The most tokens in whole steps that N parameters can see for a compute: D = C/(6·N), rounded down.

    Examples
    --------
    >>> tokens_within(1e20, 10**9, 64, 2048)
    16666591232
    """
    return _whole_steps(target_flops / (6 * num_params), batch_size_seqs * context_length)


def target_tokens(rules: Rules, architecture: str, num_params: int, batch_size_seqs: int) -> int:
    """The most tokens in whole steps that a model can see for the target compute of the rules.

    Raises
    ------
    InputError
        for an architecture that is not known.

    Examples
    --------
    >>> target_tokens(Rules(), "xlstm", 10**9, 64) == tokens_within(1e20, 10**9, 64, 2048)
    True
    """
    tokens = rules.target_flops / rules.flops_per_token(architecture, num_params)
    return _whole_steps(tokens, batch_size_seqs * rules.context_length)


def _whole_steps(tokens: float, step: int) -> int:
    """Tokens of the whole steps that fit, of one step at least."""
    return max(1, math.floor(tokens / step)) * step


def opened(prediction: Prediction) -> dict[str, Any]:
    """The prediction with a nonce: what a commitment is the hash of. The nonce keeps it from being guessed."""
    return {"prediction": prediction.as_dict(), "nonce": secrets.token_hex(16)}


def commitment(open_prediction: Mapping[str, Any]) -> str:
    """SHA-256 of an opened prediction, 64 hex digits.

    Examples
    --------
    >>> commitment({"nonce": "0", "prediction": {}}) == commitment({"prediction": {}, "nonce": "0"})
    True
    """
    return hashlib.sha256(canonical(dict(open_prediction)).encode("ascii")).hexdigest()


def prediction_from(read: Any, committed: str, source: str) -> Prediction:
    """The prediction in an opened one, if it is the one that was committed.

    Raises
    ------
    InputError
        that begins with `source` if it is not.
    """
    try:
        same = isinstance(read, dict) and set(read) == {"prediction", "nonce"} and commitment(read) == committed
    except (ValueError, RecursionError):  # a number too large for float64
        same = False
    if not same:
        raise InputError(f"{source}: is not the prediction that was committed; restore the file from a copy")
    values = read["prediction"]
    if not isinstance(values, dict) or set(values) != {"ask", "loss", "low", "high"}:
        raise InputError(f"{source}: holds no prediction")
    numbers = {name: values[name] for name in ("loss", "low", "high")}
    for name, value in numbers.items():
        if not is_number(value):
            raise InputError(f"{source}: {name} {quoted(value)} is not a number")
    if not isinstance(values["ask"], dict):
        raise InputError(f"{source}: ask is not an object")
    return Prediction(ask=ask_from(values["ask"], source), **numbers)
