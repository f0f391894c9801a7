"""Float64 references of kernel cases, and how errors are measured and judged against them. Needs torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from companion.benchmarks.kernels.cases import GENERAL, Case
from companion.benchmarks.kernels.inputs import Inputs, make_inputs
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.state import MLSTMState

#: An error may be this many times that of the plain-torch chunkwise form in the same dtype and with the same chunks.
FACTOR = 1.5
#: Relative error of float32 results that needs no comparison: eight roundings of float32.
FLOAT32_FLOOR = 8 * torch.finfo(torch.float32).eps
#: Tokens between the states that autograd keeps in the recurrence.
CHECKPOINT_EVERY = 64
STATE_NAMES = ("C", "n", "m")
INPUT_NAMES = ("q", "k", "v", "i", "f")


@dataclass(frozen=True)
class Reference:
    """Outputs and gradients of one case by `mlstm_oracle`.

    Attributes
    ----------
    outputs
        h and the final C, n, m.
    gradients
        per upstream gradient, for the orthogonal one without the normalizer's part (see `references`): dq, dk, dv, di,
        df, and dC0, dn0, dm0 if the case starts from a memory.
    terms
        per upstream gradient: Frobenius norms of the terms whose sums are di, df and dm0 (see `allowed_error`).
    """

    outputs: dict[str, torch.Tensor]
    gradients: dict[str, dict[str, torch.Tensor]]
    terms: dict[str, dict[str, float]]


def same_shape(cases: Sequence[Case]) -> Iterator[tuple[Case, ...]]:
    """Cases that one run of the recurrence serves together, as a batch."""
    groups: dict[Any, list[Case]] = {}
    for case in cases:
        shape = (case.context_length, case.n_heads, case.d_qk, case.d_hv, case.gate == "exponential", case.sequences)
        groups.setdefault(shape, []).append(case)
    yield from (tuple(group) for group in groups.values())


def references(cases: Sequence[Case], device: str) -> dict[str, tuple[Inputs, Reference]]:
    """Inputs and reference of every case of one shape (see `same_shape`), by name.

    For the upstream gradient orthogonal to h, which only implementations that leave the normalizer's gradient out are
    given, gradients are those with a constant normalizer. They are the full ones as far as the upstream gradient is
    orthogonal; rounded to bfloat16 it is so to three digits, and df̃ of one regime, sums that nearly cancel, differs by
    5 %. A kernel is not to blame for that.
    """
    inputs = {case.name: make_inputs(case, device) for case in cases}
    of_mode: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for full in (True, False):
        rows = [(case, mode) for case in cases for mode in case.modes if (mode == GENERAL) == full]
        if rows:
            of_mode |= _results(rows, inputs, full)
    found = {}
    for case in cases:
        wanted = [f"d{name}" for name in INPUT_NAMES]
        wanted += [f"d{name}0" for name in STATE_NAMES] if case.initial_state else []
        modes = {mode: of_mode[case.name, mode] for mode in case.modes}
        reference = Reference(
            outputs={name: modes[GENERAL][name] for name in ("h", *STATE_NAMES)},
            gradients={mode: {name: one[name] for name in wanted} for mode, one in modes.items()},
            terms={mode: _terms(case, inputs[case.name], one) for mode, one in modes.items()},
        )
        found[case.name] = (inputs[case.name], reference)
    return found


def _results(
    rows: Sequence[tuple[Case, str]], inputs: dict[str, Inputs], normalizer_gradient: bool
) -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    """Outputs and gradients of cases of one shape, by name of the case and upstream gradient."""
    stacked = [torch.cat([getattr(inputs[case.name], name) for case, _ in rows]) for name in INPUT_NAMES]
    start = [_initial(case, inputs[case.name]) for case, _ in rows]
    state = MLSTMState(*(torch.cat(parts) for parts in zip(*start, strict=True)))
    upstream = torch.cat([inputs[case.name].upstream[mode] for case, mode in rows])
    end = [inputs[case.name].state_upstream or _zeros(case, state) for case, _ in rows]
    state_upstream = MLSTMState(*(torch.cat(parts) for parts in zip(*end, strict=True)))
    first = rows[0][0]
    gate = "exponential" if first.gate == "exponential" else "sigmoid"
    tensors = (stacked, state, upstream, state_upstream, gate, normalizer_gradient)
    results = _run(*tensors) if first.sequences is None else _run_packed(*tensors, first.sequences)
    found, row, memory = {}, 0, 0
    for case, mode in rows:
        found[case.name, mode] = {
            name: value[memory : memory + case.num_states]
            if name in (*STATE_NAMES, "dC0", "dn0", "dm0")
            else value[row : row + case.batch_size]
            for name, value in results.items()
        }
        row, memory = row + case.batch_size, memory + case.num_states
    return found


def relative_error(found: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """‖found − reference‖/‖reference‖ in float64, and the numerator; NaN if one number of `found` is not finite.

    Where both are the same infinity (m of an empty memory) the difference is zero. If the reference is zero the first
    number is 0 for an exact result, and infinite otherwise.
    """
    found, reference = found.double(), reference.double()
    same = (found == reference) & ~torch.isfinite(reference)
    difference = torch.where(same, 0.0, found - reference).norm().item()
    norm = torch.where(torch.isfinite(reference), reference, 0.0).norm().item()
    if difference == 0:
        return 0.0, 0.0
    return (difference / norm if norm > 0 else float("nan") if difference != difference else float("inf")), difference


def allowed_error(
    name: str, reference: torch.Tensor, torch_difference: float, dtype: torch.dtype, stored: torch.dtype, terms: float
) -> float:
    """Largest ‖found − reference‖ that passes: 1.5 times that of plain torch, but at least a floor.

    The floor is the largest of three: what rounding the exact result to the dtype it is stored in costs (a quarter of
    the spacing of numbers; for float32 eight spacings, as it is also the dtype of accumulation); for the gradients of
    gates and of m, which are sums that can cancel to nothing, one spacing of the input dtype times the terms of the
    sum; and numbers too small for the dtype it is stored in.

    Parameters
    ----------
    name
        of the tensor (`di`, `df`, `dm0` have terms).
    torch_difference
        ‖·‖ of plain torch against the reference; not finite where that form fails, which then allows only the floor.
    dtype, stored
        of the inputs, and of this tensor.
    terms
        norm of the summed terms, 0 for other tensors.
    """
    finite = torch.where(torch.isfinite(reference), reference, 0.0)
    relative = FLOAT32_FLOOR if stored == torch.float32 else torch.finfo(stored).eps / 4
    smallest = torch.finfo(stored).tiny * (torch.finfo(stored).eps if stored == torch.float16 else 1)
    floors = [relative * finite.norm().item(), smallest * finite.numel() ** 0.5]
    if name in ("di", "df", "dm0"):
        floors.append(torch.finfo(dtype).eps * terms)
    compared = FACTOR * torch_difference if torch_difference < float("inf") else 0.0
    return max(compared, *floors)


def _initial(case: Case, inputs: Inputs) -> MLSTMState:
    if inputs.initial_state is not None:
        return inputs.initial_state
    return MLSTMState.empty(
        case.num_states, case.n_heads, case.d_qk, case.d_hv, dtype=torch.float64, device=inputs.q.device
    )


def _zeros(case: Case, like: MLSTMState) -> MLSTMState:
    return MLSTMState(*(x.new_zeros(case.num_states, *x.shape[1:]) for x in like))


def _run(
    tensors: Sequence[torch.Tensor],
    state: MLSTMState,
    upstream: torch.Tensor,
    state_upstream: MLSTMState,
    gate: str,
    normalizer_gradient: bool,
) -> dict[str, torch.Tensor]:
    """h, final state and all gradients of one batch, by the names of `Reference`."""
    leaves = [x.detach().requires_grad_() for x in (*tensors, *state)]
    memory = MLSTMState(*leaves[5:])
    every = CHECKPOINT_EVERY if upstream.shape[1] > 2 * CHECKPOINT_EVERY else None
    h, final = mlstm_oracle(
        *leaves[:5], initial_state=memory, gate=gate, normalizer_gradient=normalizer_gradient, checkpoint_every=every
    )
    # an exponent of −∞ (an empty memory that stays empty) has no gradient of use
    weights = [torch.where(torch.isfinite(x), g, 0.0) for x, g in zip(final, state_upstream, strict=True)]
    gradients = torch.autograd.grad([h, *final], leaves, [upstream, *weights], allow_unused=True)
    names = [*(f"d{name}" for name in INPUT_NAMES), *(f"d{name}0" for name in STATE_NAMES)]
    named = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for name, gradient, leaf in zip(names, gradients, leaves, strict=True)
    }
    return {"h": h.detach(), **{n: x.detach() for n, x in zip(STATE_NAMES, final, strict=True)}, **named}


def _run_packed(
    tensors: Sequence[torch.Tensor],
    state: MLSTMState,
    upstream: torch.Tensor,
    state_upstream: MLSTMState,
    gate: str,
    normalizer_gradient: bool,
    lengths: Sequence[int],
) -> dict[str, torch.Tensor]:
    """One sequence after another; the batch holds rows (cases and upstream gradients), each with all sequences."""
    rows, parts, start = upstream.shape[0], [], 0
    for number, length in enumerate(lengths):
        piece = slice(start, start + length)
        memory = MLSTMState(*(x[number :: len(lengths)] for x in state))
        end = MLSTMState(*(x[number :: len(lengths)] for x in state_upstream))
        if length:
            inside = [x[:, piece] for x in tensors]
            parts.append(_run(inside, memory, upstream[:, piece], end, gate, normalizer_gradient))
        else:  # nothing happens: the memory is handed on, and so is its gradient
            names = [*(f"d{name}" for name in INPUT_NAMES), "h"]
            empty = {n: x[:, piece] for n, x in zip(names, (*tensors, upstream), strict=True)}
            kept = dict(zip(STATE_NAMES, memory, strict=True))
            parts.append({**empty, **kept, **{f"d{n}0": x for n, x in zip(STATE_NAMES, end, strict=True)}})
        start += length
    joined = {}
    for name in parts[0]:
        if name in (*STATE_NAMES, "dC0", "dn0", "dm0"):
            stacked = torch.stack([part[name] for part in parts], dim=1)
            joined[name] = stacked.reshape(rows * len(lengths), *stacked.shape[2:])
        else:
            joined[name] = torch.cat([part[name] for part in parts], dim=1)
    return joined


def _terms(case: Case, inputs: Inputs, found: dict[str, torch.Tensor]) -> dict[str, float]:
    """Norms of what is summed up in the gradients of gates and of m.

    dĩ_t is the sum of k_t·dk_t over the width of a head; df̃_t is sigmoid(−f̃_t) times a sum over later tokens of
    differences between q·dq and k·dk; dm₀ the sum of C₀·dC₀ and n₀·dn₀.
    """
    of_k, of_q = ((inputs_x * found[name]).abs().sum(-1) for inputs_x, name in ((inputs.k, "dk"), (inputs.q, "dq")))
    of_i = of_k if case.gate == "exponential" else of_k * torch.sigmoid(-inputs.i)
    norms = {"di": of_i.norm().item(), "df": (torch.sigmoid(-inputs.f) * (of_k + of_q)).norm().item()}
    if inputs.initial_state is not None:
        C, n, _ = inputs.initial_state
        norms["dm0"] = ((C * found["dC0"]).abs().sum((-1, -2)) + (n * found["dn0"]).abs().sum(-1)).norm().item()
    return norms
