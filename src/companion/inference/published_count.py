"""What the authors count in a prefill and a step of the timed models, and by what it differs from our count.

Recovered from the column `work` of `data/inference_fit_rows.csv`, whose nine digits come out in every row. The names
of the terms are a reading of their sizes: that a term is 8·d per token and block is certain, that it prices two norms
is not.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER, TFLA, Convention
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, count_prefill, count_step
from companion.accounting.params import count_params
from companion.architectures import Architecture
from companion.errors import NotApplicable
from companion.inference.timings import Array, Quantity, by_model, middle_context

#: FLOPs of the prefill: attention with 0.65 of the scores; the tighter count of the mLSTM, chunks of 128, 0.75.
TRANSFORMER_COUNT = replace(PAPER, name="published prefill", attention_causal_factor=0.65)
XLSTM_COUNT = replace(TFLA, name="published prefill", chunk_size=128, mlstm_causal_factor=0.75)


@dataclass(frozen=True, kw_only=True)
class _Published:
    """What the authors count for one architecture: numbers per token and block, in d = d_model, H = n_heads, d_ff."""

    prefill: Convention
    #: 2·H and −2·d·H more FLOPs of the gates, or none.
    gates_at_half: bool
    #: FLOPs of norms, in d.
    norms: int
    #: share of the weights' bytes that counts in a step: the Transformer's as if 100 steps shared one read.
    weights_share: float
    #: activations of a step, in d and in H, beside 3·d_ff.
    step_width: int
    step_heads: int


#: The published counts exist for the two architectures that the authors timed.
_PUBLISHED = {
    "transformer": _Published(
        prefill=TRANSFORMER_COUNT, gates_at_half=False, norms=8, weights_share=0.01, step_width=8, step_heads=0
    ),
    "xlstm": _Published(
        prefill=XLSTM_COUNT, gates_at_half=True, norms=11, weights_share=1.0, step_width=18, step_heads=4
    ),
}
#: Terms that explain the difference between the counts, by quantity.
TERMS = {"ttft": ("mixer_core", "gates", "norms"), "step_time": ("weights", "cache", "activations")}


def published_work(rows: pd.DataFrame, quantity: Quantity) -> Array:
    """FLOPs of the prefill (`ttft`) or bytes of the step (`step_time`) by the authors' count, shape (n,).

    Prefill, beside `forward_flops` under `TRANSFORMER_COUNT` or `XLSTM_COUNT`: logits of the last token alone; per
    token and block 8·d more for a Transformer; for an xLSTM 11·d and 2·H more, and 2·d·H less, as the two gates are
    priced at half a product.

    Step: weights (the Transformer's at a hundredth) in 2 bytes; keys and values, or the state read and written, as in
    `companion.accounting.inference.count_step`; activations in 2 bytes: V + 3·d numbers, and per block 8·d + 3·d_ff for
    a Transformer, 18·d + 4·H + 3·d_ff for an xLSTM.
    """
    result = np.zeros(len(rows))
    batch, prompt = (rows[name].to_numpy(dtype=float) for name in ("batch_size", "prefill_length"))
    for model, at in by_model(rows):
        if quantity == "ttft":
            result[at] = batch[at] * sum(_prefill(model, prompt[at]).values())
        else:
            result[at] = sum(_step(model, middle_context(rows)[at], batch[at]).values())
    return result


def count_differences(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Our count of every row beside the authors', and the terms of the difference; with the index of the rows.

    Returns
    -------
    DataFrame
        with `ours` (`count_prefill` in FLOP, `count_step` in bytes moved), `published`, `ratio` (published over ours),
        and published minus ours by term: `mixer_core`, `gates` and `norms`, or `weights`, `cache` and `activations`.
        The terms add up to the difference.
    """
    found = pd.DataFrame(0.0, index=rows.index, columns=["ours", "published", "ratio", *TERMS[quantity]])
    batch, prompt = (rows[name].to_numpy(dtype=float) for name in ("batch_size", "prefill_length"))
    for model, at in by_model(rows):
        if quantity == "ttft":
            counted = count_prefill(model, prompt[at], batch[at])
            theirs = {name: batch[at] * value for name, value in _prefill(model, prompt[at]).items()}
            core = counted.flops.mixer_core
            terms = {"mixer_core": theirs["mixer_core"] - core, "gates": theirs["gates"], "norms": theirs["norms"]}
            ours = counted.flops.total
        else:
            step = count_step(model, middle_context(rows)[at], batch[at]).traffic
            theirs = _step(model, middle_context(rows)[at], batch[at])
            terms = {name: theirs[name] - getattr(step, name) for name in TERMS["step_time"]}
            ours = step.total
        found.iloc[at] = np.stack(
            [np.broadcast_to(value, len(at)) for value in (ours, sum(theirs.values()), 0.0, *terms.values())], axis=1
        )
    return found.assign(ratio=found["published"] / found["ours"])


def count_table(timings: pd.DataFrame, prompts: tuple[int, int] = (128, 16384), batch_size: int = 8) -> pd.DataFrame:
    """The authors' count of every model of a table over ours, and the terms of the difference as shares of ours.

    Returns
    -------
    DataFrame
        with `architecture`, `model_size`; `prefill_short` and `prefill_long`: ratio at both prompts; `mixer_core`,
        `gates`, `norms` at the longer one; `step`: ratio of the bytes of a step after it, with a batch; and `weights`,
        `activations`.
    """
    models = timings.drop_duplicates(["architecture", "model_size"])
    found = models[["architecture", "model_size"]].reset_index(drop=True)
    short, long = (models.assign(prefill_length=prompt, batch_size=batch_size) for prompt in prompts)
    prefill, step = count_differences(long, "ttft"), count_differences(long, "step_time")
    found["prefill_short"] = count_differences(short, "ttft")["ratio"].to_numpy()
    found["prefill_long"] = prefill["ratio"].to_numpy()
    for name in TERMS["ttft"]:
        found[name] = (prefill[name] / prefill["ours"]).to_numpy()
    found["step"] = step["ratio"].to_numpy()
    for name in ("weights", "activations"):
        found[name] = (step[name] / step["ours"]).to_numpy()
    return found


def _published(model: Architecture) -> _Published:
    if model.name not in _PUBLISHED:
        raise NotApplicable(f"published count of {model.name}: there is one of {', '.join(_PUBLISHED)} only")
    return _PUBLISHED[model.name]


def _prefill(model: Architecture, prompt: Array) -> dict[str, Any]:
    """FLOPs of one sequence by part; `gates` and `norms` are what the authors count beyond ours."""
    d, H, theirs = model.d_model, model.n_heads, _published(model)
    forward = forward_flops(model, prompt, theirs.prefill)
    token_blocks = model.n_layers * prompt
    return {
        "products": forward.total - forward.unembedding - forward.mixer_core,
        "mixer_core": forward.mixer_core,
        "gates": token_blocks * (2 * H - 2 * d * H if theirs.gates_at_half else 0),
        "norms": token_blocks * theirs.norms * d,
        "logits": 2.0 * d * model.vocab_size,
    }


def _step(model: Architecture, context: Array, batch: Array) -> dict[str, Any]:
    """Bytes of a step of the batch by part; those of cache or state as in our count."""
    weights, theirs = count_params(model), _published(model)
    block = theirs.step_width * model.d_model + theirs.step_heads * model.n_heads + 3 * model.d_ff
    numbers = model.n_layers * block + 3 * model.d_model + model.vocab_size
    return {
        "weights": (weights.total - weights.embedding) * BF16.bytes_per_weight * theirs.weights_share,
        "cache": count_step(model, context, batch).traffic.cache,
        "activations": batch * numbers * BF16.bytes_per_activation,
    }
