"""Copies of what a model keeps of a prefix: checked, then timed. Needs torch."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from companion.accounting.inference import cache_bytes
from companion.architectures import Architecture
from companion.benchmarks.kernels.timing import graph_of
from companion.benchmarks.models.gate import LIMIT, PROMPT, STEPS, TOLERANCE, error_of, finite, references
from companion.benchmarks.models.launches import fill, random_model, random_tokens
from companion.benchmarks.models.models import architecture_of, shapes_of
from companion.benchmarks.models.serving import why
from companion.benchmarks.models.session import Session, say
from companion.benchmarks.models.timed import does_not_fit, free_bytes, peak_bytes, release, reset_peak, timing_of
from companion.models import LanguageModel, Memory

#: Slots of a memory beyond the prefix.
SPARE = 16


def measure_copies(session: Session, name: str, size: str, cells: Sequence[dict[str, Any]]) -> None:
    """Check a model's copies and time those of some prefixes; results go to the session."""
    architecture, device = architecture_of(name, size), session.device
    common = {"model": name, "size": size, "shapes": shapes_of(architecture)}
    release(device)
    model = random_model(architecture, device)
    passed = copies_verified(session, model, {**common, "implementation": "companion"})
    del model
    release(device)
    if not passed:
        session.total -= len(cells)
        say(f"{name} {size}: a check failed; it is not timed")
        return
    for cell in cells:
        if session.out_of_time():
            return
        session.add({**cell, **common, **copied(session, architecture, cell["prompt_tokens"], cell["launch"])})
        release(device)


@torch.no_grad()
def copies_verified(session: Session, model: LanguageModel, common: dict[str, Any]) -> bool:
    """Whether a copy of a prefix goes on like one pass over everything; every check goes to the session."""
    tokens = random_tokens(model.architecture, 2, PROMPT + STEPS, session.device)
    exact, plain = (logits[:, 1:] for logits in references(model, tokens))
    reference = error_of(plain, exact)
    passed = True
    found = continued(model, tokens)
    session.total += len(found)
    for quantity, logits in found.items():
        error, tolerance = error_of(logits, exact), min(TOLERANCE * reference, LIMIT)
        right = error <= tolerance  # false for NaN
        reason = "" if right else f"error {error:.3g}, at most {tolerance:.3g} is right"
        numbers = {"error": finite(error), "reference_error": finite(reference), "tolerance": finite(tolerance)}
        result = {"part": "check", **common, "quantity": quantity, "batch_size": 2, **numbers}
        session.add({**result, "verdict": "pass" if right else "fail", "reason": reason})
        passed = passed and right
    return passed


def continued(model: LanguageModel, tokens: Tensor) -> dict[str, Tensor]:
    """Logits (B, STEPS, V) of the tokens after a prefix that was copied, by how they are read.

    Between the copy and its use the first memory goes on with other tokens: a copy that shares anything with it is
    wrong then.
    """
    memory = Memory.empty(
        model.architecture, len(tokens), PROMPT + STEPS, dtype=model.unembedding.weight.dtype, device=tokens.device
    )
    model(tokens[:, :PROMPT], memory, last=True)
    kept, again = memory.copy(), memory.copy()
    model(tokens.flip(1)[:, :STEPS], memory)
    restore(memory, kept)
    return {
        "a copied prefix, then one pass": model(tokens[:, PROMPT:], kept.copy()).float(),
        "a copied prefix, then steps": steps(model, tokens, again),
        "a prefix copied back, then steps": steps(model, tokens, memory),
    }


def steps(model: LanguageModel, tokens: Tensor, memory: Memory) -> Tensor:
    """Logits of the tokens after the prefix, read one by one."""
    return torch.cat([model(tokens[:, t : t + 1], memory).float() for t in range(PROMPT, PROMPT + STEPS)], dim=1)


def restore(memory: Memory, kept: Memory) -> None:
    """Copy what another memory of the same shapes holds into one that is there, such as that of a captured step."""
    for to, tensor in zip((*memory.tensors, memory.position), (*kept.tensors, kept.position), strict=True):
        to.copy_(tensor)
    memory.length = kept.length


def copied(session: Session, architecture: Architecture, prefix: int, launch: str) -> dict[str, Any]:
    """Times of a copy of a prefix of one sequence, or why there are none."""
    kept, free = float(cache_bytes(architecture, prefix)), free_bytes(session.device)
    needed = 2.05 * kept  # and the counters and positions
    if needed > free:
        return {"skipped": does_not_fit(needed, free)}
    try:
        return timed_copy(session, architecture, prefix, launch)
    except RuntimeError as error:
        reason = why(error, needed, free)
        session.num_failed += reason.startswith("failed")
        return {"skipped": reason}


@torch.no_grad()
def timed_copy(session: Session, architecture: Architecture, prefix: int, launch: str) -> dict[str, Any]:
    """Times of a copy; the memory holds random numbers instead of a prefix: the time does not depend on them."""
    device = session.device
    memory = Memory.empty(architecture, 1, prefix + SPARE, device=device)
    fill(memory)
    memory.length = prefix
    other = memory.copy()  # the allocator has the blocks from here on, as that of a server does
    reset_peak(device)
    if launch == "graph":
        times = timing_of(graph_of([partial(restore, other, memory)]).replay, device)
    else:
        del other
        times = timing_of(memory.copy, device)
    return {
        **times,
        "peak_memory_bytes": peak_bytes(device),
        "kept_bytes": memory.num_bytes,
        **session.shares(times["seconds_median"], 0.0, 2.0 * memory.num_bytes),
    }
