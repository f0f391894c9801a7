"""Prefixes that several prompts share, as a tree, and what caching them takes for models with and without a state.

A prompt is a row of named segments: `("system", 4000), ("tools", 2000), ("user 7", 300)`. Prompts share their segments
up to the first that differs. Serving systems keep such a tree of what they have read (radix attention,
arXiv 2312.07104). Counts here are those of a cache that already holds all other prompts when one arrives.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from companion.errors import InputError
from companion.inference.prefix import KeptPerSequence

__all__ = ["PrefixTree", "TreeUse", "prefix_tree"]

Segment = tuple[str, int]
Path = tuple[str, ...]
#: Where snapshots are kept: where prompts part, where prompts end, or at equal distances.
Snapshots = Literal["branches", "ends"] | int


@dataclass(frozen=True, kw_only=True)
class PrefixTree:
    """Prompts with common beginnings.

    Attributes
    ----------
    ends_at
        tokens from the first to the end of a segment, by the path of segment names that leads to it.
    prompts
        the path of every prompt, in the order given; equal prompts occur several times.
    """

    ends_at: Mapping[Path, int]
    prompts: tuple[Path, ...]

    def starts_at(self, path: Path) -> int:
        """Tokens before a segment."""
        return self.ends_at[path[:-1]] if len(path) > 1 else 0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of every prompt."""
        return tuple(self.ends_at[path] for path in self.prompts)

    @property
    def unique_tokens(self) -> int:
        """Tokens of all segments, each counted once: what attention has to keep."""
        return sum(end - self.starts_at(path) for path, end in self.ends_at.items())

    @property
    def branches(self) -> tuple[Path, ...]:
        """Paths after which prompts part: they go on differently, or one ends where another goes on or ends as well."""
        ways = Counter(path[:-1] for path in self.ends_at if len(path) > 1) + Counter(self.prompts)
        return tuple(path for path in self.ends_at if ways[path] > 1)

    @property
    def shared(self) -> tuple[Path, ...]:
        """The longest path that every prompt shares with another one; empty if none."""
        users = Counter(prompt[:depth] for prompt in self.prompts for depth in range(1, len(prompt) + 1))
        several = {path for path, number in users.items() if number > 1}
        return tuple(_longest(prompt, several) for prompt in self.prompts)

    def grid_points(self, every: int) -> int:
        """Different prefixes of the tree whose length is a multiple of `every` tokens."""
        return sum(end // every - self.starts_at(path) // every for path, end in self.ends_at.items())

    def use(self, kept: KeptPerSequence, snapshots: Snapshots = "branches", *, block_size: int = 1) -> "TreeUse":
        """What caching all prompts takes, and what a prompt reads again although another one has read it.

        Parameters
        ----------
        kept
            bytes of the model, see `companion.inference.prefix.kept_by`.
        snapshots
            where states are kept: `branches`, where prompts part (which a server knows only once a second prompt has
            come); `ends`, where prompts end, as in a conversation; or a whole number, the tokens between two of
            them. A model without a state needs none.
        block_size
            tokens that keys and values are stored in; prompts share whole blocks only. Without recurrent layers the
            shared prefix is cut to whole blocks; with them snapshots decide, and keys and values go as far.

        Raises
        ------
        InputError
            if `snapshots` or `block_size` cannot be.
        """
        if snapshots not in ("branches", "ends"):
            _whole(snapshots, "snapshots", " nor 'branches' or 'ends'")
        _whole(block_size, "block_size")
        number, reused = 0, tuple(self.ends_at.get(path, 0) // block_size * block_size for path in self.shared)
        if kept.state_bytes:
            number, reused = self._snapshots(snapshots)
        stored = self.grid_points(block_size) * block_size if kept.token_bytes else 0
        return TreeUse(
            total_tokens=sum(self.lengths),
            shared_tokens=sum(self.ends_at.get(path, 0) for path in self.shared),
            reused_tokens=sum(reused),
            num_snapshots=number,
            cache_bytes=stored * kept.token_bytes,
            snapshot_bytes=number * kept.state_bytes,
        )

    def _snapshots(self, where: Snapshots) -> tuple[int, tuple[int, ...]]:
        """How many snapshots there are, and the tokens that every prompt can go on from."""
        if isinstance(where, int):
            return self.grid_points(where), tuple(self.ends_at.get(path, 0) // where * where for path in self.shared)
        if where == "branches":
            return len(self.branches), tuple(self.ends_at.get(path, 0) for path in self.shared)
        ends = Counter(self.prompts)
        begun = [prompt if ends[prompt] > 1 else prompt[:-1] for prompt in self.prompts]  # its own end is not there yet
        return len(ends), tuple(self.ends_at.get(_longest(path, ends), 0) for path in begun)


@dataclass(frozen=True, kw_only=True)
class TreeUse:
    """What a cache of several prompts takes and spares.

    `total_tokens` of all prompts; `shared_tokens` of them another prompt has as well; of those, `reused_tokens` need no
    second reading. `cache_bytes` of keys and values, `snapshot_bytes` of `num_snapshots` states.
    """

    total_tokens: int
    shared_tokens: int
    reused_tokens: int
    num_snapshots: int
    cache_bytes: float
    snapshot_bytes: float

    @property
    def total_bytes(self) -> float:
        """Bytes of keys, values and snapshots."""
        return self.cache_bytes + self.snapshot_bytes

    @property
    def reread_tokens(self) -> int:
        """Tokens read again although another prompt has read them."""
        return self.shared_tokens - self.reused_tokens


def prefix_tree(prompts: Sequence[Sequence[Segment]]) -> PrefixTree:
    """The tree of prompts, each a row of segments (name, tokens).

    Raises
    ------
    InputError
        if there is no prompt, one is empty, a segment has no token, or one segment has two lengths.

    Examples
    --------
    >>> system, tools = ("system", 4000), ("tools", 2000)
    >>> tree = prefix_tree([[system, tools, ("a", 300)], [system, tools, ("b", 100)], [system, ("c", 50)]])
    >>> tree.unique_tokens, [" > ".join(path) for path in tree.branches]
    (6450, ['system', 'system > tools'])
    """
    if not prompts:
        raise InputError("prefix_tree: there are no prompts")
    ends: dict[Path, int] = {}
    paths: list[Path] = []
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {number}: it has no segments")
        path: Path = ()
        end = 0
        for name, tokens in prompt:
            if tokens < 1 or tokens != int(tokens):
                raise InputError(f"prompt {number}: segment {name!r} has {tokens} tokens; at least 1, a whole number")
            path, end = (*path, name), end + int(tokens)
            if ends.setdefault(path, end) != end:
                raise InputError(
                    f"prompt {number}: segment {name!r} ends at {end} tokens, but at {ends[path]} in an earlier prompt"
                )
        paths.append(path)
    return PrefixTree(ends_at=ends, prompts=tuple(paths))


def _longest(path: Path, among: Container[Path]) -> Path:
    """The longest beginning of a path that is among others; empty if none is."""
    return next((path[:depth] for depth in range(len(path), 0, -1) if path[:depth] in among), ())


def _whole(value: object, name: str, or_words: str = "") -> None:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name}: {value!r} is not a positive whole number{or_words}")
