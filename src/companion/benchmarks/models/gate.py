"""Before a model is timed: its timed paths against float32 weights, beside what plain torch loses in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from companion.benchmarks.kernels.timing import graph_of
from companion.benchmarks.models.launches import Prefill, attention, compiled_blocks, keep_widths, random_tokens
from companion.benchmarks.models.session import Session
from companion.benchmarks.models.timed import release
from companion.models import CapturedStep, LanguageModel, Memory, build, generate, layers

#: Tokens of the prompt (no whole number of chunks), steps after it, and sequences.
PROMPT, STEPS, BATCHES = 300, 8, (2, 1)
#: Largest error, relative to that of plain torch in bfloat16; and largest difference between a graph and its call.
TOLERANCE, GRAPH_TOLERANCE = 1.5, 0.1
#: No error above this is right, whatever plain torch loses.
LIMIT = 0.5
#: Stands in records for an error that is not finite, which JSON cannot hold.
UNKNOWN = 1e30


@torch.no_grad()
def verified(session: Session, model: LanguageModel, common: dict[str, Any]) -> bool:
    """Whether all timed paths of a model are right; every check goes to the session.

    With --resume, checks that the file holds as passed are not made again.
    """
    compiled, graphs = not session.options.no_compile, session.device == "cuda"
    names = [(quantity, batch) for batch in BATCHES for quantity in quantities(compiled, graphs, batch)]
    fields = [{"part": "check", **common, "quantity": name, "batch_size": batch} for name, batch in names]
    if not any(session.todo(each) for each in fields):
        return True
    session.total += len(fields)
    tokens = random_tokens(model.architecture, max(BATCHES), PROMPT + STEPS, session.device)
    exact, plain = references(model, tokens)
    passed = True
    for batch in BATCHES:
        found = timed_logits(model, tokens[:batch], compiled, graphs)
        of_all = error_of(plain[:batch], exact[:batch])
        for each in (each for each in fields if each["batch_size"] == batch):
            logits = found[each["quantity"]]
            if each["quantity"] == "generate":
                result = {"error": float((~torch.isfinite(logits)).sum()), "reference_error": 0.0, "tolerance": 0.0}
            elif each["quantity"].startswith("replay"):
                own = found[each["quantity"].removeprefix("replay of ")]
                result = {
                    "error": error_of(logits, own),
                    "reference_error": of_all,
                    "tolerance": GRAPH_TOLERANCE * of_all,
                }
            else:
                where = slice(0, 1) if each["quantity"].startswith("prefill") else slice(1, None)
                reference = max(of_all, error_of(plain[:batch, where], exact[:batch, where]))
                result = {
                    "error": error_of(logits, exact[:batch, where]),
                    "reference_error": reference,
                    "tolerance": min(TOLERANCE * reference, LIMIT),
                }
            right = result["error"] <= result["tolerance"]  # false for NaN
            reason = "" if right else f"error {result['error']:.3g}, at most {result['tolerance']:.3g} is right"
            result = {name: finite(value) for name, value in result.items()}
            session.add({**each, **result, "verdict": "pass" if right else "fail", "reason": reason})
            passed = passed and right
    release(session.device)
    return passed


def quantities(compiled: bool, graphs: bool, batch: int) -> list[str]:
    """What is checked for a batch: prefills and steps by the launches that are timed."""
    call = "compiled" if compiled else "eager"
    found = [f"prefill, {call}", "steps, eager"]
    found += [f"replay of prefill, {call}", "replay of steps, eager"] if graphs else []
    if compiled and batch > 1:
        found += ["steps, compiled", *(["replay of steps, compiled"] if graphs else [])]
    return [*found, "generate"]


def references(model: LanguageModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, 1 + STEPS, V) of the last token of the prompt and of the steps, in one plain pass each.

    Returns
    -------
    tuple[Tensor, Tensor]
        with float32 weights, and with the model's own.
    """
    own = model.unembedding.weight
    copy = build(model.architecture, device="meta", dtype=torch.float32).to_empty(device=own.device)
    for to, parameter in zip(copy.parameters(), model.parameters(), strict=True):
        to.copy_(parameter)
    with plain_torch():
        exact, plain = (each(tokens)[:, PROMPT - 1 :].float() for each in (copy, model))
    return exact, plain


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within, the mLSTM and attention are plain torch, and float32 products are float32 throughout."""
    kernel, precision = layers.mlstm, torch.get_float32_matmul_precision()
    layers.mlstm = partial(kernel, backend="torch")  # type: ignore[assignment]
    torch.set_float32_matmul_precision("highest")
    try:
        with attention("math"):
            yield
    finally:
        layers.mlstm = kernel
        torch.set_float32_matmul_precision(precision)


def timed_logits(model: LanguageModel, tokens: Tensor, compiled: bool, graphs: bool) -> dict[str, Tensor]:
    """Logits of the timed paths by the names of `quantities`: (B, 1, V) of prefills, (B, STEPS, V) of steps."""
    batch, device, call = tokens.shape[0], tokens.device.type, "compiled" if compiled else "eager"
    prefill = Prefill(model, batch, PROMPT, device)
    prefill.tokens.copy_(tokens[:, :PROMPT])
    found = {}
    with compiled_blocks(model, "forward", compiled):
        prefill()
        found[f"prefill, {call}"] = prefill.logits.float().clone()
        if graphs:
            graph = graph_of([prefill])
            graph.replay()
            found[f"replay of prefill, {call}"] = prefill.logits.float().clone()
            del graph
        memory = prefill.memory.copy()
        after = generate(model, tokens[:, :PROMPT], STEPS)
    inside = (after >= 0) & (after < model.architecture.vocab_size)
    found["generate"] = torch.where(inside, 0.0, torch.nan)
    for name in ("eager", "compiled")[: 2 if compiled and batch > 1 else 1]:
        with compiled_blocks(model, "step", name == "compiled"):
            found[f"steps, {name}"] = steps(model, memory.copy(), tokens, graph=False)
            if graphs:
                found[f"replay of steps, {name}"] = steps(model, memory.copy(), tokens, graph=True)
    found["generate"] = found["generate"] + 0.0 * found["steps, eager"].sum()
    return found


def steps(model: LanguageModel, memory: Memory, tokens: Tensor, *, graph: bool) -> Tensor:
    """Logits (B, STEPS, V) of the tokens after the prompt, one by one."""
    keep_widths(memory)
    step = CapturedStep(model, memory) if graph else partial(model, memory=memory)
    found = [step(tokens[:, t : t + 1]).float().clone() for t in range(PROMPT, PROMPT + STEPS)]
    return torch.cat(found, dim=1)


def error_of(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact numbers."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def finite(value: float) -> float:
    """A number that JSON can hold."""
    return value if abs(value) < UNKNOWN else UNKNOWN
