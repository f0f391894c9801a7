"""The Llama of the `transformers` library: the same shapes and prompts, random weights; where it is installed."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch._dynamo

from companion.architectures import Architecture
from companion.benchmarks.models.launches import random_tokens
from companion.benchmarks.models.models import architecture_of, shapes_of
from companion.benchmarks.models.serving import count, moved_bytes, roofline, why
from companion.benchmarks.models.session import Session
from companion.benchmarks.models.timed import (
    does_not_fit,
    free_bytes,
    peak_bytes,
    release,
    reset_peak,
    timing_of,
)

#: How much longer than its roofline a prefill is foreseen to take.
SLOWNESS = 3.0


def absent(attention: str) -> str:
    """Why an attention of the library cannot be used here; empty if it can."""
    if find_spec("transformers") is None:
        return "transformers is not installed"
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        return "flash_attn is not installed"
    return ""


def measure_peer(session: Session, name: str, size: str, cells: Sequence[dict[str, Any]]) -> None:
    """Time the cells of a model and size; results go to the session."""
    architecture, device = architecture_of(name, size), session.device
    common = {"shapes": shapes_of(architecture)}
    for attention in dict.fromkeys(cell["attention"] for cell in cells):
        own = [{**cell, **common} for cell in cells if cell["attention"] == attention]
        if reason := absent(attention):
            for cell in own:
                session.add({**cell, "skipped": reason})
            continue
        torch._dynamo.reset()
        release(device)
        model = llama(architecture, attention, device)
        for launch in dict.fromkeys(cell["launch"] for cell in own):
            if launch == "compiled":  # layer by layer: all have the same code, which is compiled once
                for layer in model.model.layers:
                    layer.compile(dynamic=True)
            for cell in (cell for cell in own if cell["launch"] == launch):
                if session.out_of_time():
                    return
                session.add(_measured(session, model, architecture, cell))
                release(device)
        del model
        release(device)


def llama(architecture: Architecture, attention: str, device: str) -> Any:
    """`LlamaForCausalLM` with the shapes of a Transformer and random bf16 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    a = architecture
    shapes: dict[str, Any] = {
        "hidden_size": a.d_model, "intermediate_size": a.d_ff, "num_hidden_layers": a.n_layers,
        "num_attention_heads": a.n_heads, "num_key_value_heads": a.n_kv_heads, "head_dim": a.d_hv,
        "vocab_size": a.vocab_size, "max_position_embeddings": 2**18, "attn_implementation": attention,
    }  # fmt: skip
    config = LlamaConfig(**shapes, rms_norm_eps=1e-6, tie_word_embeddings=False)
    with torch.device(device):
        made: Any = LlamaForCausalLM(config)
    return made.to(torch.bfloat16).eval().requires_grad_(False)


def _measured(
    session: Session, forward: Callable[..., Any], architecture: Architecture, cell: dict[str, Any]
) -> dict[str, Any]:
    costs, device = count(architecture, cell), session.device
    needed, free = float(costs.memory.total), free_bytes(device)
    reason = does_not_fit(needed, free) if needed > free else session.too_slow(SLOWNESS * roofline(session, costs))
    if reason:
        return {**cell, "skipped": reason}
    tokens = random_tokens(architecture, cell["batch_size"], cell["prompt_tokens"], device)

    @torch.no_grad()
    def action() -> None:
        forward(tokens, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)

    try:
        action()
        reset_peak(device)
        times = {**timing_of(action, device), "peak_memory_bytes": peak_bytes(device)}
    except RuntimeError as error:
        reason = why(error, needed, free)
        session.num_failed += reason.startswith("failed")
        return {**cell, "skipped": reason}
    return {**cell, **times, **session.shares(times["seconds_median"], float(costs.flops.total), moved_bytes(costs))}
