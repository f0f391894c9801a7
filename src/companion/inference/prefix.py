"""Prefix caching: what it costs to keep what a model knows of a prefix of tokens, and what a second use of it saves.

Requests that begin with the same tokens (a system prompt, a document, the earlier turns of a conversation) need that
*prefix* read only once, if the model keeps what it knows of it. Attention keeps keys and values of every token: two
requests share them up to the token where they part, wherever that is. A recurrent mixer keeps one state of the whole
prefix and overwrites it with every token. The state cannot be cut back to a shorter prefix, so it helps only requests
that go on from a point where a copy was made, a *snapshot* (Pan et al. 2025, arXiv 2411.19379, MLSys 2025). A hybrid
needs both at the same point.

`kept_by` counts the bytes of one architecture; its methods compare keeping them with reading the prefix again. How many
snapshots to keep: `best_interval`. Many prompts at once: `companion.inference.prefix_tree`. Serving systems put
snapshots on a grid: vLLM at the boundaries of its cache blocks (documentation, "Automatic Prefix Caching", on hybrid
Mamba models), SGLang at the nodes of its tree of prefixes (PyTorch blog, "Hybrid Models Meet SGLang", December 2025).
"""

import math
from dataclasses import dataclass

import numpy as np

from companion.accounting.inference import BF16, Precision
from companion.accounting.params import over_layers
from companion.architectures import Architecture
from companion.errors import InputError
from companion.numeric import Numeric, Values

__all__ = ["KeptPerSequence", "best_interval", "interval_seconds", "kept_by", "reread_tokens"]


@dataclass(frozen=True, kw_only=True)
class KeptPerSequence:
    """What a model keeps of one sequence, in all layers.

    Attributes
    ----------
    token_bytes
        bytes of keys and values per token; 0 without attention.
    state_bytes
        bytes of the states of recurrent layers, whatever the length; 0 without such layers.
    """

    token_bytes: float
    state_bytes: float

    def entry_bytes(self, prefix_tokens: Numeric) -> Numeric:
        """Bytes that keep one prefix of P tokens for a second use: its keys and values, and one snapshot of states."""
        tokens = _whole(prefix_tokens, "prefix_tokens")
        return tokens * self.token_bytes + self.state_bytes * np.minimum(tokens, 1)

    def copy_seconds(self, prefix_tokens: Numeric, bytes_per_s: float, *, share_tokens: bool = True) -> Numeric:
        """Seconds to copy within one memory what a request continues from: every byte is read and written.

        With `share_tokens` the request reads the stored keys and values where they are, as in paged attention
        (arXiv 2309.06180), and only states are copied, because the request overwrites them.
        """
        _rate(bytes_per_s, "bytes_per_s")
        tokens = _whole(prefix_tokens, "prefix_tokens")
        moved = self.state_bytes * np.minimum(tokens, 1) if share_tokens else self.entry_bytes(prefix_tokens)
        return 2 * moved / bytes_per_s

    def load_seconds(self, prefix_tokens: Numeric, bytes_per_s: float) -> Numeric:
        """Seconds to bring a prefix from another memory: all its bytes once over a link of that rate."""
        return self.entry_bytes(prefix_tokens) / _rate(bytes_per_s, "bytes_per_s")

    def paying_prefix(self, seconds_per_token: float, bytes_per_s: float) -> float:
        """Tokens from which loading a prefix over a link takes less time than reading it again; not rounded.

        Parameters
        ----------
        seconds_per_token
            what a prefill takes per token; taken to be the same at every length.
        bytes_per_s
            rate of the link.

        Returns
        -------
        float
            0 if loading is faster at every length; infinite if one token's keys and values take as long as reading the
            token or longer: then no length pays.
        """
        token = self.token_bytes / _rate(bytes_per_s, "bytes_per_s")
        gained = _rate(seconds_per_token, "seconds_per_token") - token
        return self.state_bytes / bytes_per_s / gained if gained > 0 else float("inf")

    @property
    def tokens_of_one_snapshot(self) -> float:
        """Tokens whose keys and values take the bytes of one snapshot; infinite without attention, 0 without states.

        In a hybrid, snapshots this far apart double what a long prefix takes.
        """
        if not self.state_bytes:
            return 0.0
        return self.state_bytes / self.token_bytes if self.token_bytes else float("inf")


def kept_by(architecture: Architecture, precision: Precision = BF16) -> KeptPerSequence:
    """Bytes per token and bytes of states of an architecture.

    With a window the keys and values of all tokens count: to go on from any token, the window before it must be there.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> kept = kept_by(preset("xlstm", "7b"))
    >>> print(f"{kept.token_bytes:.0f} bytes a token, {kept.state_bytes / 2**20:.1f} MiB a snapshot")
    0 bytes a token, 128.3 MiB a snapshot
    """

    def of(kind: str) -> float:
        found = over_layers(
            architecture,
            lambda mixer, number: number * mixer.cache_numbers(1) * precision.kept(mixer) * (mixer.kept_as == kind),
        )
        return float(found)

    return KeptPerSequence(token_bytes=of("cache"), state_bytes=of("state"))


def reread_tokens(shared_tokens: Numeric, every: int) -> Numeric:
    """Tokens of a shared prefix that a request reads again, if snapshots (or cache blocks) end at multiples of `every`.

    Shared lengths that fall anywhere between two snapshots alike need (every − 1) / 2 tokens on average.

    Examples
    --------
    >>> int(reread_tokens(979, 528))
    451
    """
    return _whole(shared_tokens, "shared_tokens") % _every(every)


def interval_seconds(
    every: Numeric,
    kept: KeptPerSequence,
    *,
    prefix_tokens: float,
    hits: float,
    seconds_per_token: float,
    seconds_kept: float,
    memory_bytes: float,
) -> Numeric:
    """Seconds of a device that snapshots at equal distances along a prefix take: memory held, and tokens read again.

    A snapshot that stays for `seconds_kept` takes its share of the device's memory for that long, and so that share of
    the device. Every request that meets the prefix reads (every − 1) / 2 tokens again on average.

    Parameters
    ----------
    every
        tokens between snapshots, at least 1; arrays give arrays.
    kept
        of the model; its `state_bytes` count, keys and values do not depend on `every`.
    prefix_tokens
        tokens over which snapshots are spread: prefix_tokens / every of them.
    hits
        requests that go on from somewhere in the prefix while it is kept.
    seconds_per_token
        of a prefill.
    seconds_kept
        time for which the snapshots are kept.
    memory_bytes
        of the device.

    Raises
    ------
    InputError
        if a number is not positive.
    """
    if np.any(np.asarray(every) < 1):
        raise InputError(f"every: {every} is not at least 1")
    per_byte = _rate(seconds_kept, "seconds_kept") / _rate(memory_bytes, "memory_bytes")
    held = _rate(prefix_tokens, "prefix_tokens") * kept.state_bytes * per_byte / every
    again = _rate(hits, "hits") * _rate(seconds_per_token, "seconds_per_token") * (every - 1) / 2
    return held + again


def best_interval(
    kept: KeptPerSequence,
    *,
    prefix_tokens: float,
    hits: float,
    seconds_per_token: float,
    seconds_kept: float,
    memory_bytes: float,
    budget_bytes: float = float("inf"),
) -> int:
    """Tokens between snapshots that take the fewest seconds of `interval_seconds`, within a budget of bytes.

    Without a budget this is close to sqrt(2·P·S·τ / (M·h·r)) for P tokens, S bytes a snapshot, τ seconds kept, M bytes
    of memory, h hits, r seconds a token: the square root of Young's rule for checkpoints of long computations
    (doi 10.1145/361147.361115). At most one snapshot a token, and at least one for the whole prefix.

    Parameters
    ----------
    budget_bytes
        the most bytes that snapshots may take; the others as for `interval_seconds`.

    Raises
    ------
    InputError
        if a number is not positive, the model keeps no state, or the budget is below one snapshot.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> best_interval(kept_by(preset("xlstm", "7b")), prefix_tokens=16384, hits=100, seconds_per_token=35e-6,
    ...               seconds_kept=600, memory_bytes=141e9)
    2315
    """
    if not kept.state_bytes:
        raise InputError("best_interval: the model keeps no state, and its keys and values need no snapshots")
    if budget_bytes < kept.state_bytes:
        raise InputError(
            f"budget_bytes {budget_bytes:,.0f} is below one snapshot, which takes {kept.state_bytes:,.0f} bytes"
        )

    def seconds(every: float) -> float:
        return float(
            interval_seconds(
                every,
                kept,
                prefix_tokens=prefix_tokens,
                hits=hits,
                seconds_per_token=seconds_per_token,
                seconds_kept=seconds_kept,
                memory_bytes=memory_bytes,
            )
        )

    seconds(1)  # raises for numbers that cannot be
    best = math.sqrt(2 * prefix_tokens * kept.state_bytes * seconds_kept / memory_bytes / (hits * seconds_per_token))
    # a budget of whole snapshots must not lose one to rounding
    least = max(1, math.ceil(prefix_tokens * kept.state_bytes / budget_bytes * (1 - 1e-12)))
    most = max(least, math.floor(prefix_tokens))
    candidates = {min(max(round_(best), least), most) for round_ in (math.floor, math.ceil)}
    return min(sorted(candidates), key=seconds)


def _whole(value: Numeric, name: str) -> Values:
    """The value as float64; an InputError unless all of it is whole and not negative."""
    values = np.asarray(value, dtype=float)
    if not np.all((values >= 0) & (values == np.floor(values)) & np.isfinite(values)):
        raise InputError(f"{name}: {value} is not a whole number of at least 0")
    return values[()]


def _every(every: int) -> int:
    if every < 1 or every != int(every):
        raise InputError(f"every: {every} is not a positive whole number")
    return int(every)


def _rate(value: float, name: str) -> float:
    if not 0 < value < float("inf"):
        raise InputError(f"{name} {value} is not a positive, finite number")
    return value
