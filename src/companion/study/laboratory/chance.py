"""Numbers that look random and are a pure function of a key and of what they are for.

A generator would make an answer depend on what was asked before. Here every number is read off SHA-256 of its labels.
"""

import hashlib
import hmac
import json
import sys
from typing import Any

from scipy.special import ndtri

#: Steps between 0 and 1 that a number can take: float64 holds them exactly.
_STEPS = 2**52


def canonical(value: Any) -> str:
    """The JSON text of a value that hashes are taken of: keys sorted, no spaces, ASCII.

    Raises
    ------
    ValueError
        for NaN or infinity, which JSON does not have.

    Examples
    --------
    >>> canonical({"b": 1.5, "a": [1, "x"]})
    '{"a":[1,"x"],"b":1.5}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number that float64 can hold; true and false are none.

    Examples
    --------
    >>> is_number(3), is_number(True), is_number("3"), is_number(10**400)
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN


def derived_key(key: str, *labels: str) -> str:
    """A key of 64 hex digits for a purpose: HMAC-SHA-256 of the labels (RFC 2104). It says nothing of `key`.

    Examples
    --------
    >>> derived_key("secret", "world", "ada") == derived_key("secret", "world", "ada")
    True
    >>> derived_key("secret", "world", "ada") == derived_key("secret", "final", "ada")
    False
    """
    return hmac.new(key.encode("utf-8"), canonical(labels).encode("utf-8"), hashlib.sha256).hexdigest()


def uniform(key: str, *labels: object) -> float:
    """A number between 0 and 1, neither included, that looks uniform over keys and labels.

    Examples
    --------
    >>> 0 < uniform("key", "loss", 3) < 1
    True
    """
    digest = hmac.new(key.encode("utf-8"), canonical(labels).encode("utf-8"), hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") % _STEPS + 0.5) / _STEPS


def normal(key: str, *labels: object) -> float:
    """A number that looks standard normal over keys and labels: the normal quantile of `uniform`.

    Examples
    --------
    >>> normal("key", "loss", 3) == normal("key", "loss", 3)
    True
    """
    return float(ndtri(uniform(key, *labels)))
