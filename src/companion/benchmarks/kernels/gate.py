"""What an implementation must show before it is timed: the right outputs and gradients.

Twice: on a small shape with the same heads against the float64 recurrence (gates for which the normalizer matters),
and at the timed shape, for the last head of the last sequence, against the chunkwise form in float32. Gradients that
leave the normalizer out (those of peers, and ours on request) are compared for an upstream gradient orthogonal to h,
for which they should be right; the result says which upstream gradient it was. Needs torch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from companion.benchmarks.kernels.cases import GENERAL, ORTHOGONAL, Case, orthogonal_mode
from companion.benchmarks.kernels.checks import failure, measure, number
from companion.benchmarks.kernels.evaluation import evaluate
from companion.benchmarks.kernels.implementations import Implementation
from companion.benchmarks.kernels.references import Reference, references
from companion.kernels.mlstm.torch_forms import chunkwise

#: Largest relative error of bf16 results that counts as right. Plain torch stays below 0.01; 0.05 lets a peer pass
#: whose gradients of the gates are rounded more (0.03 was measured), and stops what is wrong (from 0.1 up).
TOLERANCE = 0.05
#: Tokens of the small shape: several chunks of 256.
SMALL_LENGTH = 512


def verify_small(
    implementation: Implementation, d_qk: int, d_hv: int, *, backward: bool, device: str = "cuda"
) -> dict[str, Any]:
    """`verified`, the largest relative error and its tensor, the upstream gradient; `reason` if not verified."""
    if implementation.computation == "attention":
        return _verify_attention(implementation, d_qk, backward=backward, device=device)
    case, inputs, reference = _small(implementation.computation, d_qk, d_hv, device)
    mode = GENERAL if implementation.normalizer_gradient else orthogonal_mode("bfloat16")
    try:
        found = evaluate(implementation, case, inputs, torch.bfloat16, mode, backward=backward)
    except Exception as error:  # a refusal is a reason not to time it
        return {"verified": False, **_reason(error)}
    errors, _ = measure(found, reference, mode)
    wanted = {"h", "dq", "dk", "dv", "di", "df"} if backward else {"h"}
    if case.gate == "forget_only":
        wanted -= {"di"}
    if missing := wanted - set(errors):
        return {"verified": False, "reason": f"no {', '.join(sorted(missing))}"}
    upstream = GENERAL if implementation.normalizer_gradient else ORTHOGONAL
    return judge_errors({name: errors[name] for name in wanted}, upstream if backward else None)


def verify_timed(
    implementation: Implementation,
    tensors: tuple[torch.Tensor, ...],
    found: dict[str, torch.Tensor],
    upstream: torch.Tensor,
    slices: dict[str, dict[str, torch.Tensor]],
) -> dict[str, Any]:
    """The last head of the last sequence at the timed shape, where offsets are largest.

    Parameters
    ----------
    tensors, upstream
        q, k, v, i, f and the upstream gradient in the layout of the implementation. Their gates keep |nᵀq| below
        exp(−m), so gradients are right for any upstream gradient even without the normalizer.
    found
        h and, if they were computed, dq, dk, dv.
    slices
        references by computation and layout, kept between implementations; filled here.
    """
    bhtd = implementation.layout == "bhtd"

    def last(x: torch.Tensor) -> torch.Tensor:
        return (x[-1:, -1:].transpose(1, 2) if bhtd else x[-1:, :, -1:]).detach().float()

    # the inputs of the two layouts are drawn in another order, so they are other numbers
    kind = f"{implementation.computation} {implementation.layout}"
    if kind not in slices:
        slices[kind] = _slice_reference(implementation.computation, [last(x) for x in tensors], last(upstream))
    reference = slices[kind]
    differences = {name: (last(x) - reference[name]).norm() / reference[name].norm() for name, x in found.items()}
    return judge_errors({f"{name} at the timed shape": float(x) for name, x in differences.items()}, None)


def judge_errors(errors: dict[str, float], mode: str | None) -> dict[str, Any]:
    """Whether all errors are below `TOLERANCE` (and numbers)."""
    worst = max(errors, key=lambda name: errors[name] if errors[name] == errors[name] else float("inf"))
    judged: dict[str, Any] = {
        "verified": bool(errors[worst] < TOLERANCE),
        "error": number(errors[worst]),
        "error_of": worst,
        "upstream": mode,
    }
    if not judged["verified"]:
        said = f"{errors[worst]:.3g}" if errors[worst] == errors[worst] else "not finite"
        judged["reason"] = f"wrong: relative error of {worst} {said}, allowed {TOLERANCE}"
    return judged


@lru_cache(maxsize=16)
def _small(computation: str, d_qk: int, d_hv: int, device: str) -> tuple[Case, Any, Reference]:
    case = Case(
        name=f"gate_{computation}_{d_qk}_{d_hv}",
        group="gate",
        context_length=SMALL_LENGTH,
        n_heads=1,
        d_qk=d_qk,
        d_hv=d_hv,
        gate=computation,
        regime="growing" if computation == "exponential" else "typical",
        orthogonal=computation == "exponential",
        dtypes=("bfloat16",),
    )
    if computation == "sigmoid":
        case = replace(case, regime="soft_cap")
    inputs, reference = references((case,), device)[case.name]
    return case, inputs, reference


def _slice_reference(computation: str, tensors: list[torch.Tensor], upstream: torch.Tensor) -> dict[str, torch.Tensor]:
    q, k, v = (x.requires_grad_() for x in tensors[:3])
    i, f = tensors[3:]
    if computation == "attention":
        h = _attention_reference(q, k, v)
    else:
        i = torch.full_like(i, 64.0) if computation == "forget_only" else i
        h = chunkwise(q, k, v, i, f, gate="exponential" if computation == "exponential" else "sigmoid")[0]
    gradients = torch.autograd.grad(h, (q, k, v), upstream)
    return {"h": h.detach(), **dict(zip(("dq", "dk", "dv"), gradients, strict=True))}


def _attention_reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int = 1024) -> torch.Tensor:
    """Causal softmax attention of one head in float32, (1, T, 1, d); blocks of queries, for the memory."""
    query, key, value = (x[0, :, 0] for x in (q, k, v))
    position, outputs = torch.arange(len(key), device=key.device), []
    for start in range(0, len(query), block):
        stop = min(start + block, len(query))
        scores = query[start:stop] @ key[:stop].T * query.shape[-1] ** -0.5
        hidden = position[None, :stop] > position[start:stop, None]
        outputs.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value[:stop])
    return torch.cat(outputs)[None, :, None]


def _verify_attention(implementation: Implementation, width: int, *, backward: bool, device: str) -> dict[str, Any]:
    random = torch.Generator(device=device).manual_seed(0)
    shape = (1, 1, SMALL_LENGTH, width)
    tensors = [torch.randn(shape, generator=random, device=device).bfloat16() for _ in range(4)]
    low = [x.clone().requires_grad_() for x in tensors[:3]]
    high = [x.float().transpose(1, 2).requires_grad_() for x in tensors[:3]]
    try:
        h, _ = implementation.call(*low, None, None)
        gradients = torch.autograd.grad(h, low, tensors[3]) if backward else ()
    except Exception as error:  # a refusal is a reason not to time it
        return {"verified": False, **_reason(error)}
    reference = _attention_reference(high[0], high[1], high[2]).transpose(1, 2)
    expected = torch.autograd.grad(reference, high, tensors[3].float())
    pairs = [("h", h, reference)]
    if backward:
        names = ("dq", "dk", "dv")
        pairs += [(n, x, y.transpose(1, 2)) for n, x, y in zip(names, gradients, expected, strict=True)]
    errors = {name: float((x.detach().float() - y.detach()).norm() / y.norm().detach()) for name, x, y in pairs}
    return judge_errors(errors, GENERAL if backward else None)


def _reason(error: Exception) -> dict[str, Any]:
    return {"reason": failure(error)["reason"]}
