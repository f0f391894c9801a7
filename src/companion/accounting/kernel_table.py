"""Which kernels make up a pass of the mLSTM's cell, and what each of them multiplies and moves, per head.

`companion.accounting.kernel_costs` makes FLOPs and bytes of it. The constants are those of the kernels, written twice
because the accounting does not import them; a test holds them equal.
"""

from dataclasses import dataclass, replace
from typing import Literal

#: d_qk up to which values are weighed in registers as they come, rather than keys written with their weights:
#: `kernels.mlstm.launch_fused.WEIGHED_UP_TO`.
WEIGHED_UP_TO = 64


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What a kernel does per head: products of each kind per chunk, and vectors, gates and states that it moves."""

    kernel: str
    stage: Literal["forward", "backward"]
    #: products of 2·L²·d_qk FLOP (causal share of it): queries times keys, gradients of pairs times keys or queries.
    scores: int = 0
    #: products of 2·L²·d_hv FLOP (causal share of it): weights times values, and their gradients.
    weighted: int = 0
    #: products of 2·L·d_qk·d_hv FLOP: keys times values into a state, queries times a state, and their gradients.
    states: int = 0
    #: products of 2·L·carried_tile·d_hv FLOP: weights times values within tiles, computed whole.
    tile_weighted: int = 0
    #: vectors of d_qk and of d_hv numbers read or written per token, and gates.
    qk_vectors: int
    hv_vectors: int
    gates: int = 2
    #: states read or written per chunk.
    chunk_states: int = 1
    #: matrices of L × L numbers per chunk, for pairs of its tokens, read or written.
    chunk_pairs: int = 0
    #: rows of carried_tile numbers per token, for pairs within tiles, read or written.
    tile_pairs: int = 0


#: Kernels of `companion.kernels` by name: those of whole vectors or pairs, not those of gates and of n alone. The final
#: state, written where it is asked for, is not counted.
KERNELS = (
    # sums of keys for the normalizer's state
    Kernel(kernel="gate_weights", stage="forward", qk_vectors=1, hv_vectors=0, gates=0, chunk_states=0),
    Kernel(kernel="states", stage="forward", states=1, qk_vectors=1, hv_vectors=1),
    Kernel(kernel="scores", stage="forward", scores=1, qk_vectors=2, hv_vectors=0, chunk_states=0, chunk_pairs=1),
    Kernel(
        kernel="outputs", stage="forward", weighted=1, states=1, qk_vectors=1, hv_vectors=2, gates=0, chunk_pairs=1,
    ),
    # only where the forward pass has not kept them
    Kernel(kernel="states", stage="backward", states=1, qk_vectors=1, hv_vectors=1),
    Kernel(
        kernel="pair_gradients", stage="backward", scores=1, weighted=1, qk_vectors=2, hv_vectors=2,
        chunk_states=0, chunk_pairs=2,
    ),
    Kernel(
        kernel="query_gradients", stage="backward", scores=1, states=1, qk_vectors=3, hv_vectors=1, chunk_pairs=2,
    ),
    Kernel(kernel="state_gradients", stage="backward", states=1, qk_vectors=1, hv_vectors=1, chunk_states=2),
    # dk and dv at the same time: what both read comes from memory once
    Kernel(
        kernel="key_value_gradients", stage="backward", scores=1, weighted=1, states=2, qk_vectors=3, hv_vectors=3,
        chunk_pairs=2,
    ),
    # sums over the columns of the pairs
    Kernel(
        kernel="gate_gradients", stage="backward", qk_vectors=0, hv_vectors=0, gates=4, chunk_states=0, chunk_pairs=1,
    ),
)  # fmt: skip

#: The forward kernels where one carries the state from tile to tile: they take the place of those of `KERNELS`. Not
#: counted: the state at the end, and what is computed twice where few sequences are cut into segments.
FUSED = (
    # keys once more, written with their weights
    Kernel(kernel="gate_weights", stage="forward", qk_vectors=2, hv_vectors=0, gates=0, chunk_states=0),
    # all pairs computed, for the normalizer's sums; those within tiles written
    Kernel(kernel="scores", stage="forward", scores=1, qk_vectors=2, hv_vectors=0, chunk_states=0, tile_pairs=1),
    Kernel(
        kernel="states_and_outputs", stage="forward", states=2, tile_weighted=1, qk_vectors=2, hv_vectors=2,
        chunk_states=0, tile_pairs=1,
    ),
)  # fmt: skip
#: The same for d_qk up to `WEIGHED_UP_TO`: one weight per token is written and read in place of the weighted keys.
FUSED_NARROW = (replace(FUSED[0], qk_vectors=1, gates=1), FUSED[1], replace(FUSED[2], gates=3))


def kernels_of_cell(d_qk: int, *, carried: bool, keep_states: bool) -> tuple[Kernel, ...]:
    """The kernels of forward and backward pass, in their order.

    Parameters
    ----------
    d_qk
        width of a head's queries and keys.
    carried
        whether one kernel carries the state from tile to tile (`FUSED`), or states and outputs are two.
    keep_states
        whether the forward pass leaves the state at the start of every chunk to the backward pass, which has no kernel
        `states` then. Where states and outputs are two kernels they are written in any case.
    """
    forward = tuple(each for each in KERNELS if each.stage == "forward")
    if carried:
        first, scores, last = FUSED_NARROW if d_qk <= WEIGHED_UP_TO else FUSED
        forward = (first, scores, replace(last, chunk_states=int(keep_states)))
    backward = tuple(each for each in KERNELS if each.stage == "backward")
    return forward + tuple(each for each in backward if not (keep_states and each.kernel == "states"))
