"""Small experiments on the mLSTM cell for chapter 10 (`10_gpu_kernels`): forms, what overflows, what a gradient holds.

All run on a CPU in about a second. Errors are relative Frobenius norms, ‖out − ref‖/‖ref‖, against the float64 oracle
on inputs that were rounded to the dtype first, so that what is measured is the form and not the rounding of its inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid

from companion.kernels.mlstm.api import mlstm, mlstm_step
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.state import MLSTMState

Tensor = torch.Tensor
NAMES = ("q", "k", "v", "i", "f")
#: The plain-torch forms by their backend.
FORMS = {"recurrent": "torch-recurrent", "chunkwise": "torch", "parallel": "torch-parallel"}
DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def cell_inputs(
    context_length: int,
    *,
    n_heads: int = 2,
    d_qk: int = 16,
    d_hv: int = 32,
    input_gate: float = 0.0,
    forget_gate: float = 3.0,
    spread: float = 1.0,
    shared: float = 1.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random q, k, v and gate pre-activations around given means, one sequence, float64.

    Parameters
    ----------
    input_gate, forget_gate
        means of ĩ and f̃; `spread` is their standard deviation.
    shared
        size of a direction that all queries and keys share, per number. Without it the sum nᵀq has no sign, a token may
        divide by almost nothing, and a relative error says how near to nothing, not how good a form is.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*width: int) -> Tensor:
        return torch.randn(1, context_length, n_heads, *width, generator=generator, dtype=torch.float64)

    direction = shared * normal(d_qk)[:, :1].sign()
    inputs = {"q": normal(d_qk) + direction, "k": normal(d_qk) + direction, "v": normal(d_hv)}
    return inputs | {"i": input_gate + spread * normal(), "f": forget_gate + spread * normal()}


def relative_error(out: Tensor, reference: Tensor) -> float:
    """‖out − ref‖/‖ref‖ in float64; infinite where a number of `out` is not finite."""
    out, reference = out.double(), reference.double()
    if not bool(torch.isfinite(out).all()):
        return float("inf")
    return float((out - reference).norm() / reference.norm())


def relative_norm(found: Any, reference: Any) -> float:
    """`relative_error` of numbers that are not tensors."""
    return relative_error(*(torch.from_numpy(np.array(x, dtype=float)) for x in (found, reference)))


def form_errors(
    inputs: dict[str, Tensor], *, dtypes: Sequence[str] = tuple(DTYPES), chunk_size: int = 64
) -> pd.DataFrame:
    """Outputs, states and gradients of the recurrent, chunkwise and parallel form against the oracle.

    The upstream gradient of h is random; gates stay in float32 (float64 with float64), as the kernels have them.

    Returns
    -------
    DataFrame with `form`, `dtype`, `quantity` (h, C, n, dq, dk, dv, di, df) and `error`.
    """
    rows = []
    for name in dtypes:
        dtype, high = DTYPES[name], torch.promote_types(DTYPES[name], torch.float32)
        rounded = {key: x.to(high if key in "if" else dtype) for key, x in inputs.items()}
        upstream = _upstream(rounded["v"]).to(dtype)
        reference = _outputs_and_gradients(lambda *x: mlstm_oracle(*x), rounded, upstream)
        for form, backend in FORMS.items():
            options = {"chunk_size": chunk_size} if backend == "torch" else {}
            found = _outputs_and_gradients(_call(backend, **options), rounded, upstream)
            for quantity, value in found.items():
                error = relative_error(value, reference[quantity])
                rows.append({"form": form, "dtype": name, "quantity": quantity, "error": error})
    return pd.DataFrame(rows)


# ---- without the exponent m ----------------------------------------------------------------------


def recurrent_without_exponent(inputs: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """h of the recurrence with unscaled memories C̃ and ñ in `dtype`: exp(ĩ) itself, no m."""
    q, k, v, i, f = (inputs[name].to(dtype) for name in NAMES)
    q = q * q.shape[-1] ** -0.5
    keep, write = torch.sigmoid(f), torch.exp(i)
    C = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1], dtype=dtype)
    n = torch.zeros_like(q[:, 0])
    outputs = []
    for t in range(q.shape[1]):
        weighted = write[:, t, :, None] * k[:, t]
        C = keep[:, t, :, None, None] * C + weighted[..., None] * v[:, t, :, None, :]
        n = keep[:, t, :, None] * n + weighted
        read = (q[:, t, :, None, :] @ C).squeeze(-2)
        outputs.append(read / (n * q[:, t]).sum(-1).abs().clamp(min=1)[..., None])
    return torch.stack(outputs, dim=1)


def parallel_without_exponent(inputs: dict[str, Tensor], dtype: torch.dtype, *, factored: bool) -> Tensor:
    """h of the parallel form with weights exp(b_t − b_s + ĩ_s) in `dtype`, no m.

    `factored` splits them into exp(b_t) on the query and exp(ĩ_s − b_s) on the key, as a linear attention would: one
    product of matrices and no exponential per pair, but exp(−b_s) grows with every closed gate.
    """
    q, k, v, i, f = (inputs[name].to(dtype).transpose(1, 2) for name in NAMES)
    q = q * q.shape[-1] ** -0.5
    b = logsigmoid(f).cumsum(-1)
    causal = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    if factored:
        scores = (torch.exp(b)[..., None] * q) @ (torch.exp(i - b)[..., None] * k).transpose(-1, -2)
    else:
        exponents = b[..., :, None] - b[..., None, :] + i[..., None, :]
        scores = torch.exp(exponents.masked_fill(~causal, -torch.inf)) * (q @ k.transpose(-1, -2))
    scores = scores.masked_fill(~causal, 0.0)
    h = (scores @ v) / scores.sum(-1).abs().clamp(min=1)[..., None]
    return h.transpose(1, 2)


def without_exponent(
    gates: Sequence[tuple[float, float]], *, context_length: int = 128, dtype: torch.dtype = torch.float32
) -> pd.DataFrame:
    """Errors of h with and without m, by means of the gate pre-activations (ĩ, f̃).

    Returns
    -------
    DataFrame with `input_gate`, `forget_gate`, and an error per way to compute; infinite where a number overflows.
    """
    rows = []
    for input_gate, forget_gate in gates:
        inputs = cell_inputs(context_length, input_gate=input_gate, forget_gate=forget_gate)
        rounded = {name: x.to(dtype) for name, x in inputs.items()}
        reference, _ = mlstm_oracle(*(rounded[name] for name in NAMES))
        found = {
            "with m": mlstm(*(rounded[name] for name in NAMES), backend="torch"),
            "recurrent": recurrent_without_exponent(rounded, dtype),
            "pairs": parallel_without_exponent(rounded, dtype, factored=False),
            "factored": parallel_without_exponent(rounded, dtype, factored=True),
        }
        row: dict[str, Any] = {"input_gate": input_gate, "forget_gate": forget_gate}
        rows.append(row | {name: relative_error(h, reference) for name, h in found.items()})
    return pd.DataFrame(rows)


# ---- the gradient through the normalizer ---------------------------------------------------------


def head_norm(h: Tensor, epsilon: float = 0.0) -> Tensor:
    """Each head over its root mean square: blind to the scale of h if `epsilon` is 0."""
    return h / (h.square().mean(-1, keepdim=True) + epsilon).sqrt()


def normalizer_gradient_errors(
    inputs: dict[str, Tensor], heads: dict[str, Callable[[Tensor], Tensor]] | None = None
) -> pd.DataFrame:
    """Gradients with and without the part through the normalizer, for several functions of h in the loss.

    The loss is the sum of `head(h)` times fixed random numbers; float64, so that rounding plays no part.

    Parameters
    ----------
    heads
        by name; by default h itself, and the head norm without an epsilon.

    Returns
    -------
    DataFrame with `upstream` (name of the head), `normalizer_gradient`, `gradient` (dq, ...), `error`, and `parallel`:
    the share |dh·h|/(‖dh‖‖h‖) of the upstream gradient along h, root mean square over tokens and heads.
    """
    heads = heads or {"h itself": lambda h: h, "head norm": head_norm}
    rows = []
    for name, head in heads.items():
        leaves = {key: x.detach().double().requires_grad_() for key, x in inputs.items()}
        h, _ = mlstm_oracle(*(leaves[key] for key in NAMES))
        h.retain_grad()
        weights = _upstream(h)
        (head(h) * weights).sum().backward()
        assert h.grad is not None
        out = h.detach()
        along = (h.grad * out).sum(-1) / (h.grad.norm(dim=-1) * out.norm(dim=-1)).clamp(min=1e-300)
        reference = {key: x.grad for key, x in leaves.items()}
        for kept in (True, False):
            again = {key: x.detach().requires_grad_() for key, x in leaves.items()}
            found = mlstm(*(again[key] for key in NAMES), backend="torch", normalizer_gradient=kept)
            (head(found) * weights).sum().backward()
            for key, x in again.items():
                assert x.grad is not None
                expected = reference[key]
                assert expected is not None
                row: dict[str, Any] = {"upstream": name, "normalizer_gradient": kept, "gradient": f"d{key}"}
                row |= {"error": relative_error(x.grad, expected), "parallel": float(along.square().mean().sqrt())}
                rows.append(row)
    return pd.DataFrame(rows)


def normalizer_sums(inputs: dict[str, Tensor]) -> Tensor:
    """ñ_tᵀq_t/√d_qk = Σ_s S_ts by token and head, (B, T, H), float64; beyond ±1 the normalizer has a gradient."""
    q, k, i, f = (inputs[name].double().transpose(1, 2) for name in ("q", "k", "i", "f"))
    b = logsigmoid(f).cumsum(-1)
    causal = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    exponents = (b[..., :, None] - b[..., None, :] + i[..., None, :]).masked_fill(~causal, -torch.inf)
    scores = torch.exp(exponents) * (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.sum(-1).transpose(1, 2)


def state_dtype_errors(
    lengths: Sequence[int], *, forget_gate: float = 5.0, dtypes: Sequence[str] = ("float32", "bfloat16")
) -> pd.DataFrame:
    """Error of the last h after numbers of single steps, with the matrix memory C kept in a dtype.

    Returns
    -------
    DataFrame with `num_tokens` and an error per dtype.
    """
    inputs = {name: x.float() for name, x in cell_inputs(max(lengths), forget_gate=forget_gate, n_heads=4).items()}
    reference, _ = mlstm_oracle(*(inputs[name] for name in NAMES))
    rows: list[dict[str, Any]] = [{"num_tokens": length} for length in lengths]
    for dtype in dtypes:
        empty = MLSTMState.empty(1, 4, inputs["k"].shape[-1], inputs["v"].shape[-1])
        state = MLSTMState(empty.C.to(DTYPES[dtype]), empty.n, empty.m)
        for t in range(max(lengths)):
            q, k, v, i, f = (inputs[name][:, t] for name in NAMES)
            h, state = mlstm_step(q, k, v, i, f, state, backend="torch")
            for row in rows:
                if row["num_tokens"] == t + 1:
                    row[dtype] = relative_error(h, reference[:, t])
    return pd.DataFrame(rows)


# ---- the gradient of the forget gate -------------------------------------------------------------


def forget_gate_gradients(
    inputs: dict[str, Tensor], *, dtype: torch.dtype = torch.bfloat16, chunk_size: int = 64
) -> pd.DataFrame:
    """d log f by two sums that are equal on paper, of the first head, from q, k, v and h in `dtype`.

    *Totals*: Σ_{s ≥ t} (q_s·dq_s − k_s·dk_s) with dq and dk as a kernel returns them, summed in float32 over all later
    tokens. *Pairs*: by autograd of the chunkwise form, which adds what passes over t and only cancels within a chunk.

    Returns
    -------
    DataFrame with `token`, `exact` (oracle, float64), `totals` and `pairs`.
    """
    rounded = {name: x if name in "if" else x.to(dtype) for name, x in inputs.items()}
    rounded |= {name: rounded[name].float() for name in "if"}
    upstream = _upstream(rounded["v"]).to(dtype)
    exact = _outputs_and_gradients(lambda *x: mlstm_oracle(*x), rounded, upstream)
    found = _outputs_and_gradients(_call("torch", chunk_size=chunk_size), rounded, upstream)
    sums = [(rounded[name].float() * found[f"d{name}"].float()).sum(-1) for name in "qk"]
    totals = (sums[0] - sums[1]).flip(1).cumsum(1).flip(1)
    # df̃ = d log f · σ(−f̃)
    slope = torch.sigmoid(-rounded["f"].double())
    columns = {"exact": exact["df"] / slope, "totals": totals, "pairs": found["df"].double() / slope}
    table = pd.DataFrame({name: x[0, :, 0].double().numpy() for name, x in columns.items()})
    table.insert(0, "token", range(1, len(table) + 1))
    return table


def _call(backend: str, **options: Any) -> Callable[..., Any]:
    return lambda *x: mlstm(*x, backend=backend, return_state=True, **options)


def _upstream(v: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(v.shape, generator=generator, dtype=torch.float64)


def _outputs_and_gradients(form: Callable[..., Any], inputs: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    """h, C, n scaled back by exp(m), and the gradient of every input."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    h, state = form(*(leaves[name] for name in NAMES))
    h.backward(upstream.to(h.dtype))
    scale = torch.exp(state.m.double())[..., None]
    found = {"h": h.detach(), "C": (state.C.double() * scale[..., None]).detach(), "n": state.n.double() * scale}
    found["n"] = found["n"].detach()
    for name, x in leaves.items():
        assert x.grad is not None
        found[f"d{name}"] = x.grad
    return found
