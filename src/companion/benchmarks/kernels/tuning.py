"""Times every candidate configuration of every mLSTM kernel, each on its own: what the order in `configs` rests on.

A candidate runs within a whole forward and backward pass at the timed shape. If h or a gradient of that pass differs
from those of the first candidates by more than rounding, it is not timed. Needs torch and a CUDA GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from companion.benchmarks.kernels import timing
from companion.benchmarks.kernels.checks import DeviceFault, failure
from companion.benchmarks.kernels.gate import TOLERANCE
from companion.benchmarks.kernels.shapes import Shape
from companion.kernels.mlstm import configs
from companion.kernels.mlstm.ops import default_chunk_size, mlstm_triton

Fields = dict[str, Any]
Tensors = dict[str, torch.Tensor]
#: Kernels of whole sequences.
KERNELS = tuple(kernel for kernel in configs.KERNELS if kernel != "step")
#: Seconds that all timings of one candidate may take.
LIMIT = 0.2


def tune(
    shape: Shape,
    *,
    repeats: int,
    todo: Callable[[Fields], bool],
    chunk_size: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cuda",
) -> Iterator[Fields]:
    """One result per kernel and candidate: its configuration, seconds of a launch, and the largest difference.

    Parameters
    ----------
    shape
        B, T, H, d_qk and d_hv.
    todo
        whether a cell, given by its fields, is wanted.
    chunk_size
        L; the default of the kernels if not given.
    """
    size = chunk_size or default_chunk_size(shape.d_qk, dtype)
    inputs = _inputs(shape, dtype, device)
    expected = _pass(inputs, size)
    for kernel in KERNELS:
        choices = configs.candidates(kernel, d_qk=shape.d_qk, d_hv=shape.d_hv, chunk_size=size, dtype=dtype)
        for number, config in enumerate(choices):
            fields: Fields = {
                "part": "tuning",
                "case": shape.name,
                "implementation": f"companion, chunk {size}",
                "dtype": str(dtype).removeprefix("torch."),
                "configuration": f"{kernel} {number}",
                "kernel": kernel,
                "blocks": dict(config.blocks),
                "num_warps": config.num_warps,
                "num_stages": config.num_stages,
                "registers": config.registers,
            }
            if todo(fields):
                yield {**fields, **_candidate(kernel, number, inputs, size, expected, repeats)}


def _candidate(
    kernel: str, number: int, inputs: list[torch.Tensor], size: int, expected: Tensors, repeats: int
) -> Fields:
    times: Fields = {}

    def observe(name: str, config: configs.Config, attempt: Callable[[configs.Config], Any]) -> Any:
        found = attempt(config)
        if name == kernel:
            times.update(timing.seconds(lambda _: attempt(config), repeats=repeats, limit=LIMIT))
        return found

    try:
        with configs.forced(**{kernel: number}):
            found = _pass(inputs, size)
            differences = {name: _difference(found[name], expected[name]) for name in expected}
            worst = max(differences, key=lambda name: differences[name])
            if not differences[worst] < TOLERANCE:
                return {"skipped": f"wrong: {worst} differs by {differences[worst]:.3g}, allowed {TOLERANCE}"}
            with configs.observed(observe):
                _pass(inputs, size)
    except DeviceFault:
        raise
    except Exception as error:  # a candidate that asks for too much is not timed, and why is said
        return {"skipped": failure(error)["reason"]}
    return {**times, "difference": differences[worst], "difference_of": worst}


def _pass(inputs: list[torch.Tensor], size: int) -> Tensors:
    *tensors, upstream = inputs
    q, k, v, i, f = tensors
    h, _ = mlstm_triton(q, k, v, i, f, chunk_size=size)
    # in this thread, so that an observer's events and the launches share a stream
    with torch.autograd.set_multithreading_enabled(False):
        gradients = torch.autograd.grad(h, tensors, upstream)
    return {"h": h.detach(), **dict(zip(("dq", "dk", "dv", "di", "df"), gradients, strict=True))}


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found − expected‖/‖expected‖; infinite if a number is not finite."""
    difference = float((found.float() - expected.float()).norm() / expected.float().norm())
    return difference if difference == difference else float("inf")


def _inputs(shape: Shape, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """q, k, v, i, f and an upstream gradient; gates of an untrained xLSTM."""
    random = torch.Generator(device=device).manual_seed(0)
    normal = partial(torch.randn, generator=random, device=device)
    axes = (shape.batch_size, shape.context_length, shape.n_heads)
    vectors = [normal(*axes, width, dtype=dtype) for width in (shape.d_qk, shape.d_qk, shape.d_hv)]
    gates = [normal(*axes) - 10, 3 + 3 * torch.rand(*axes, generator=random, device=device)]
    return [*(x.requires_grad_() for x in (*vectors, *gates)), normal(*axes, shape.d_hv, dtype=dtype)]
