"""Timings of another cell, for orientation: the gated delta rule of flash-linear-attention. Needs torch and a CUDA GPU.

Per head, with a forget gate f = σ(f̃) and a strength β = σ(ĩ), both between 0 and 1,

    S ← f S,   S ← S + β k (v − Sᵀk)ᵀ,   h = Sᵀq / √d_qk.

It replaces what the state holds for a key, where the mLSTM adds to it. So it is not the mLSTM, computes more per chunk,
and is never ranked with it; its name in the records says so. Queries and keys have length one, as in models that use
it. Like the mLSTM it is given pre-activations of its gates. Source of the cell: Yang, Kautz and Hatamizadeh, "Gated
Delta Networks" (ICLR 2025); of the call: `fla.ops.gated_delta_rule.chunk_gated_delta_rule` of fla-core.

Nothing is timed before it is found right. This module and the others of `identity.HARNESSES["gated_delta_rule"]` are
what its records belong to; those of the mLSTM do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata

import torch
from torch.nn.functional import logsigmoid, normalize

from companion.benchmarks.kernels import timing
from companion.benchmarks.kernels.checks import failure
from companion.benchmarks.kernels.gate import SMALL_LENGTH, judge_errors
from companion.benchmarks.kernels.implementations import absent
from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE, GATED_DELTA_RULE_NAME
from companion.benchmarks.kernels.references import relative_error
from companion.benchmarks.kernels.shapes import Shape

# renaming these would make records of the mLSTM stale
from companion.benchmarks.kernels.suites import LIMIT, Fields, Settings, guarded

LIBRARY, CHUNK_SIZE = "fla", 64
#: Largest width of keys that the kernel takes.
LARGEST_D_QK = 256
#: Packages that flash-linear-attention uses for this operator if they are installed.
BACKENDS = ("flash-qla", "tilelang")
#: Tokens at either end of the last sequence that are verified at the timed shape.
ENDS = 256


def gated_delta_rule(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, i: torch.Tensor, f: torch.Tensor
) -> torch.Tensor:
    """h (B, T, H, d_hv) by the chunkwise kernel; q, k (B, T, H, d_qk), v (B, T, H, d_hv), pre-activations (B, T, H)."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    found = chunk_gated_delta_rule(q, k, v, g=logsigmoid(f.float()), beta=torch.sigmoid(i.float()))
    h: torch.Tensor = found[0]
    return h


def recurrence(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, i: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """The same in float64, one token after another."""
    q, k, v, i, f = (x.double() for x in (q, k, v, i, f))
    keep, strength = torch.sigmoid(f), torch.sigmoid(i)
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        key = k[:, t]
        state = keep[:, t, :, None, None] * state
        change = strength[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", state, key))
        state = state + key[..., None] * change[..., None, :]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, dim=1) * float(q.shape[-1]) ** -0.5


def sequences(shape: Shape, *, backward: bool, settings: Settings, todo: Callable[[Fields], bool]) -> Iterator[Fields]:
    """The result on whole sequences of one shape, if it is asked for."""
    fields: Fields = {
        "part": "training" if backward else "forward",
        "case": shape.name,
        "implementation": GATED_DELTA_RULE_NAME,
        "computation": GATED_DELTA_RULE,
        "layout": "bthd",
        "chunk_size": CHUNK_SIZE,
        "batch_size": shape.batch_size,
        "context_length": shape.context_length,
        "n_heads": shape.n_heads,
        "d_qk": shape.d_qk,
        "d_hv": shape.d_hv,
    }
    if settings.wanted(GATED_DELTA_RULE_NAME, LIBRARY) and todo(fields):
        yield from guarded({**fields, "backends": backends()}, partial(_sequence, shape, backward, settings))


def backends() -> dict[str, str]:
    """Versions of the installed packages that may do the work in place of Triton."""
    found = {}
    for name in BACKENDS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sequence(shape: Shape, backward: bool, settings: Settings) -> Fields:
    if reason := absent(LIBRARY):
        return {"skipped": reason}
    if shape.d_qk > LARGEST_D_QK:
        return {"skipped": f"d_qk {shape.d_qk} is more than {LARGEST_D_QK}"}
    key = (GATED_DELTA_RULE_NAME, shape.d_qk, shape.d_hv, backward)
    if key not in settings.gates:
        settings.gates[key] = verify_small(shape.d_qk, shape.d_hv, backward=backward, device=settings.device)
    gate = settings.gates[key]
    if not gate["verified"]:
        return {"skipped": gate["reason"], "gate": gate}
    count = timing.num_sets(shape.batch_size * shape.context_length * shape.n_heads * (2 * shape.d_qk + shape.d_hv) * 2)
    sets = [make_inputs(shape, seed, settings.device, backward=backward) for seed in range(count)]

    def action(number: int) -> dict[str, torch.Tensor]:
        return _run(sets[number % len(sets)], backward)

    try:
        found = action(0)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a refusal is a reason not to time it
        return {"skipped": failure(error)["reason"], "gate": gate}
    at_shape = verify_timed(sets[0], found)
    del found
    if not at_shape["verified"]:
        return {"skipped": at_shape["reason"], "gate": gate, "gate_at_shape": at_shape}
    memory = timing.peak_memory(action)
    times = timing.seconds(action, repeats=settings.repeats, limit=LIMIT)
    moved = least_bytes(shape, backward=backward)
    rate = moved / times["seconds_median"]
    rates = {
        "least_bytes": moved,
        "bytes_per_s": float(f"{rate:.5g}"),
        "share_of_peak_bytes": float(f"{rate / settings.peaks['peak_bytes_per_s']:.5g}"),
    }
    common = {"input_sets": len(sets), "peak_memory_bytes": memory}
    return {**times, **common, **rates, "gate": gate, "gate_at_shape": at_shape}


def least_bytes(shape: Shape, *, backward: bool) -> float:
    """Every input read once and every output written once, as `counts` has it for the mLSTM: the tensors are alike."""
    inputs, outputs = (2 * shape.d_qk + shape.d_hv) * 2 + 2 * 4, shape.d_hv * 2
    moved = inputs + outputs + (2 * inputs + outputs if backward else 0)
    return float(shape.batch_size * shape.context_length * shape.n_heads * moved)


def make_inputs(shape: Shape, seed: int, device: str, *, backward: bool) -> list[torch.Tensor]:
    """q, k of length one, v, ĩ, f̃ and an upstream gradient: bf16, gates in float32; f̃ as those of the mLSTM."""
    random = torch.Generator(device=device).manual_seed(seed)
    axes = (shape.batch_size, shape.context_length, shape.n_heads)

    def normal(*width: int) -> torch.Tensor:
        dtype = torch.bfloat16 if width else torch.float32
        return torch.randn(*axes, *width, generator=random, device=device, dtype=dtype)

    q, k = (normalize(normal(shape.d_qk), dim=-1) for _ in range(2))
    forget = 3 + 3 * torch.rand(*axes, generator=random, device=device)
    tensors = [q, k, normal(shape.d_hv), normal(), forget]
    return [*(x.requires_grad_(backward) for x in tensors), normal(shape.d_hv)]


def verify_small(d_qk: int, d_hv: int, *, backward: bool, device: str) -> Fields:
    """h and all gradients of one head and 512 tokens against the recurrence; `reason` if it is not verified."""
    small = Shape(1, d_qk, d_hv, batch_size=1, context_length=SMALL_LENGTH)
    inputs = make_inputs(small, 1234, device, backward=backward)
    try:
        found = _run(inputs, backward)
    except Exception as error:  # a refusal is a reason not to time it
        return {"verified": False, "reason": failure(error)["reason"]}
    wanted = _run(inputs, backward, recurrence)
    errors = {name: relative_error(found[name], wanted[name])[0] for name in wanted}
    return judge_errors(errors, "general" if backward else None)


def verify_timed(inputs: list[torch.Tensor], found: dict[str, torch.Tensor]) -> Fields:
    """The last head of the last sequence at the timed shape, at its two ends.

    h of the first tokens depends on these alone, and dv of the last ones as well: what comes back to them through the
    state needs no earlier token.
    """
    *tensors, upstream = inputs

    def piece(x: torch.Tensor, where: slice) -> torch.Tensor:
        return x[-1:, where, -1:].detach()

    first, last = slice(0, ENDS), slice(-ENDS, None)
    h = recurrence(*(piece(x, first) for x in tensors))
    errors = {"h at the timed shape": relative_error(piece(found["h"], first), h)[0]}
    if "dv" in found:
        ends = [piece(x, last).requires_grad_() for x in tensors]
        (dv,) = torch.autograd.grad(recurrence(*ends), ends[2], piece(upstream, last).double())
        errors["dv at the timed shape"] = relative_error(piece(found["dv"], last), dv)[0]
    return judge_errors(errors, None)


def _run(
    inputs: list[torch.Tensor], backward: bool, cell: Callable[..., torch.Tensor] = gated_delta_rule
) -> dict[str, torch.Tensor]:
    """h, and dq, dk, dv, di, df if they are asked for."""
    *tensors, upstream = inputs
    with torch.set_grad_enabled(backward):
        h = cell(*tensors)
        if not backward:
            return {"h": h}
        gradients = torch.autograd.grad(h, tensors, upstream.to(h.dtype))
    return {"h": h.detach(), **dict(zip(("dq", "dk", "dv", "di", "df"), gradients, strict=True))}
