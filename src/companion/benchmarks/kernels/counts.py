"""Useful FLOPs and least bytes of what is timed, and the shares of a GPU's peaks that follow. No torch.

They are the same for every implementation of a computation, whatever it really does, so that shares can be compared:

* FLOPs of the mLSTM: the chunkwise form at L = 64 with the masked half of the pairs left out (convention `tfla` of
  `companion.accounting`, causal factor 0.5); of attention: the causal half of both products; of a step: the recurrent
  form. Backward is twice forward.
* Bytes: every input read once and every output written once. Backward reads the inputs and the upstream gradient and
  writes the gradients of the inputs. A step reads and writes its state.
"""

from dataclasses import replace
from typing import Any

from companion.accounting.conventions import TFLA
from companion.accounting.flops import mlstm_core_flops

#: Chunk length of the useful FLOPs.
FLOPS_CHUNK = 64
BYTES_OF_GATE = 4


def sequence_counts(
    computation: str,
    *,
    batch_size: int,
    context_length: int,
    n_heads: int,
    d_qk: int,
    d_hv: int,
    backward: bool,
    element_bytes: int = 2,
) -> dict[str, float]:
    """`useful_flops` and `least_bytes` of whole sequences (see the module)."""
    tokens = batch_size * context_length * n_heads
    if computation == "attention":
        flops = float(tokens * context_length * (d_qk + d_hv))
    else:
        convention = replace(TFLA, name="useful", mlstm_causal_factor=0.5, chunk_size=FLOPS_CHUNK)
        flops = float(batch_size * mlstm_core_flops(n_heads, d_qk, d_hv, context_length, convention))
    gates = {"attention": 0, "forget_only": 1}.get(computation, 2)
    inputs = (2 * d_qk + d_hv) * element_bytes + gates * BYTES_OF_GATE
    outputs = d_hv * element_bytes
    moved = inputs + outputs + ((inputs + outputs + inputs) if backward else 0)
    return {"useful_flops": flops * (3 if backward else 1), "least_bytes": float(tokens * moved)}


def step_counts(*, batch_size: int, n_heads: int, d_qk: int, d_hv: int, state_bytes: int) -> dict[str, float]:
    """`useful_flops` and `least_bytes` of one step; `state_bytes` per number of C."""
    flops = 6 * d_qk * d_hv + 7 * d_qk + d_hv
    state = d_qk * d_hv * state_bytes + (d_qk + 1) * BYTES_OF_GATE
    vectors = (2 * d_qk + 2 * d_hv) * 2 + 2 * BYTES_OF_GATE
    heads = batch_size * n_heads
    return {"useful_flops": float(heads * flops), "least_bytes": float(heads * (2 * state + vectors))}


def shares(times: dict[str, Any], counts: dict[str, float], peaks: dict[str, float]) -> dict[str, float]:
    """Rates of the useful FLOPs and least bytes, alone and over the measured peaks."""
    flops, moved = (counts[name] / times["seconds_median"] for name in ("useful_flops", "least_bytes"))
    return {
        **counts,
        "flops_per_s": significant(flops),
        "bytes_per_s": significant(moved),
        "share_of_peak_flops": significant(flops / peaks["peak_flops_per_s"]),
        "share_of_peak_bytes": significant(moved / peaks["peak_bytes_per_s"]),
    }


def significant(value: float) -> float:
    """Five digits, as records hold them."""
    return float(f"{value:.5g}")
