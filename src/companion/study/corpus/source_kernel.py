"""Documents of the source on a GPU: a Triton kernel that gives the tokens of `drawing.draw`, bit for bit. Needs Triton.

One thread walks along one document. What it waits for in a step is a chain: the last token gives a hash (about 40
cycles), the hash a key and the bijection (about 80), and the token that followed the last one before comes from memory
(about 250 cycles from the first-level or second-level cache); all random words, ranks and distances come beside it.
That makes some 500 cycles a step. At 1.7 GHz a document of 1,024 tokens takes 0.3 ms, however few documents there are:
64 documents at once are about 200 million tokens/s by this estimate. `python -m companion.study.timing` measures it.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from companion.study.corpus.grammar import LEVELS, Grammar
from companion.study.corpus.mixing import MIX, SHIFTS, STEP

#: Documents of one program: a thread for each.
BLOCK = 32
_STEP: tl.constexpr = tl.constexpr(STEP)
_MIX_1: tl.constexpr = tl.constexpr(MIX[0])
_MIX_2: tl.constexpr = tl.constexpr(MIX[1])
_SHIFT_1: tl.constexpr = tl.constexpr(SHIFTS[0])
_SHIFT_2: tl.constexpr = tl.constexpr(SHIFTS[1])
_SHIFT_3: tl.constexpr = tl.constexpr(SHIFTS[2])


@triton.jit
def _mixed(x):
    """`mixing.mix` of 32-bit words."""
    x = x ^ (x >> _SHIFT_1)
    x = tl.mul(x, _MIX_1, sanitize_overflow=False)
    x = x ^ (x >> _SHIFT_2)
    x = tl.mul(x, _MIX_2, sanitize_overflow=False)
    return x ^ (x >> _SHIFT_3)


@triton.jit
def _scrambled(x, key, BITS: tl.constexpr):
    """`mixing.scramble` of 32-bit words."""
    MASK: tl.constexpr = (1 << BITS) - 1
    FOLD: tl.constexpr = (BITS + 1) // 2
    second = _mixed(tl.add(key, _STEP, sanitize_overflow=False))
    x = tl.mul(x, (key & MASK) | 1, sanitize_overflow=False)
    x = tl.add(x, key >> 16, sanitize_overflow=False) & MASK
    x = x ^ (x >> FOLD)
    x = tl.mul(x, (second & MASK) | 1, sanitize_overflow=False)
    x = tl.add(x, second >> 16, sanitize_overflow=False) & MASK
    return x ^ (x >> FOLD)


@triton.jit
def _drawn(words, threshold, alias, first, BITS: tl.constexpr):
    """`alias.drawn` from the table that begins at `first`; its size is 2^BITS."""
    SHIFT: tl.constexpr = 32 - BITS
    column = (words >> SHIFT).to(tl.int32)
    rest = (words & ((1 << SHIFT) - 1)).to(tl.int32)
    kept = rest < tl.load(threshold + first + column)
    return tl.where(kept, column, tl.load(alias + first + column))


@triton.jit
def _part(word, constants):
    """Which part of the mixture a 32-bit word chooses."""
    word = word.to(tl.int64)
    part = (word >= tl.load(constants)).to(tl.int32)
    for i in tl.static_range(1, 5):
        part += (word >= tl.load(constants + i)).to(tl.int32)
    return part


@triton.jit
def draw_documents(
    out, follower, numbers, constants, rank_threshold, rank_alias, distance_threshold, distance_alias,
    unconditional, classes, number, length, stream,
    BITS: tl.constexpr, DISTANCE_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (number, length): int64 tokens of the documents `numbers`. Grid: (number / BLOCK,).

    `follower` (number, V + 1), −1 at first, keeps for every symbol the token that followed it last. Tokens and
    followers are read back by the program that wrote them; the barrier makes writes visible to whatever thread reads.
    """
    V: tl.constexpr = 1 << BITS
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < number
    out += row.to(tl.int64) * length
    follower += row.to(tl.int64) * (V + 1)
    document = tl.load(numbers + row, mask=inside, other=0)
    low, high = (document & 0xFFFFFFFF).to(tl.uint32), (document >> 32).to(tl.uint32)
    # after the five bounds: roots of levels 1 to 3, the seed
    root_1 = tl.load(constants + 5).to(tl.uint32)
    root_2 = tl.load(constants + 6).to(tl.uint32)
    root_3 = tl.load(constants + 7).to(tl.uint32)
    seed = tl.load(constants + 8)
    # a value of its own for each: of names for one value, Triton carries a single one through the loop
    one = tl.zeros([BLOCK], tl.uint32)
    two = tl.zeros([BLOCK], tl.uint32)
    class_1 = tl.zeros([BLOCK], tl.uint32)
    class_2 = tl.zeros([BLOCK], tl.uint32)
    class_3 = tl.zeros([BLOCK], tl.uint32)
    class_4 = tl.zeros([BLOCK], tl.uint32)
    streams = (tl.zeros([BLOCK], tl.int32) + stream).to(tl.uint32)
    for t in range(length):
        position = (tl.zeros([BLOCK], tl.int32) + t).to(tl.uint32)
        word, word_of_rank, word_of_distance, _ = tl.philox(seed, position, low, high, streams)
        part = _part(word, constants)
        distance = _drawn(word_of_distance, distance_threshold, distance_alias, 0, DISTANCE_BITS) + 1
        part = tl.where((part == 4) & (distance > t), 0, part)
        level = tl.where(part < 4, part, 0)
        rank = _drawn(word_of_rank, rank_threshold, rank_alias, level * V, BITS)
        fallback = tl.load(unconditional + rank)

        of_classes = _mixed(_mixed(_mixed(root_3 ^ class_4) ^ class_3) ^ class_2)
        prefix = tl.where(level == 1, root_1, tl.where(level == 2, _mixed(root_2 ^ two), of_classes))
        key = _mixed(prefix ^ tl.where(level == 3, class_1, one))
        learned = _scrambled(rank.to(tl.uint32), key, BITS).to(tl.int32)
        place = follower + one.to(tl.int32)
        recalled = tl.load(place, mask=inside, other=-1)
        recalled = tl.where(recalled < 0, fallback, recalled)
        echoed = tl.load(out + (t - distance), mask=inside & (part == 4), other=0).to(tl.int32)

        token = tl.where(part == 0, fallback, learned)
        token = tl.where(part == 4, echoed, tl.where(part == 5, recalled, token))
        tl.store(out + t, token.to(tl.int64), mask=inside)
        tl.store(place, token, mask=inside)
        tl.debug_barrier()
        two = one
        one = (token + 1).to(tl.uint32)
        class_4, class_3, class_2 = class_3, class_2, class_1
        class_1 = tl.load(classes + token + 1).to(tl.uint32)


@dataclass(frozen=True)
class DeviceTables:
    """Tables of a grammar on a device, as the kernel takes them."""

    grammar: Grammar
    constants: Tensor
    tables: tuple[Tensor, ...]

    @classmethod
    def of(cls, grammar: Grammar, device: torch.device) -> "DeviceTables":
        """The tables of this grammar, copied to a device."""
        numbers = [*grammar.bounds[:5].tolist(), *grammar.roots[1:LEVELS], grammar.seed]
        arrays = (*grammar.rank_tables, *grammar.distance_tables, grammar.unconditional, grammar.classes)
        tables = tuple(torch.as_tensor(array, dtype=torch.int32, device=device).contiguous() for array in arrays)
        return cls(grammar, torch.tensor(numbers, dtype=torch.int64, device=device), tables)


def draw_on_device(tables: DeviceTables, numbers: Tensor, length: int, stream: int) -> Tensor:
    """What `drawing.draw` gives for these numbers, (len(numbers), length), int64, on the device of the tables."""
    grammar, device = tables.grammar, tables.constants.device
    out = torch.empty(len(numbers), length, dtype=torch.int64, device=device)
    if out.numel() == 0:
        return out
    follower = torch.full((len(numbers), grammar.vocab_size + 1), -1, dtype=torch.int32, device=device)
    arguments = (out, follower, numbers, tables.constants, *tables.tables, len(numbers), length, stream)
    sizes = {"BITS": grammar.bits, "DISTANCE_BITS": grammar.max_distance.bit_length() - 1, "BLOCK": BLOCK}
    # the GPU of the tables, which need not be the current one; no GPU under the interpreter
    with torch.cuda.device_of(out):
        draw_documents[(triton.cdiv(len(numbers), BLOCK),)](*arguments, **sizes, num_warps=1, num_stages=1)
    return out
