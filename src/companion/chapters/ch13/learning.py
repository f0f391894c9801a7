"""What small models learn of a source with a known entropy: curves, losses, what they say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import num_params
from companion.architectures import Architecture
from companion.chapters.ch13 import figures
from companion.chapters.ch13.small import BATCH_SIZE, CONTEXT_LENGTH, CORE_FLOPS_PER_S, Plan, learned
from companion.chapters.ch13.source import CopySource
from companion.chapters.timed_models import MODEL_LABELS
from companion.formatting import count, listed, percent, power_of_ten, span_text
from companion.plotting import Html, show, show_table

#: Labels of the small models: their hybrid has another share of attention than that of the suites.
SMALL_LABELS = MODEL_LABELS | {"hybrid": "hybrid"}
#: Points of a curve.
NUM_POINTS = 25
#: Share of what context can give from which on a model has learned to copy, and from which on a part of it.
MOST, SOME = 0.8, 0.2


def curves(losses: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Means of the losses of some steps, about `NUM_POINTS` for each model.

    Returns
    -------
    DataFrame
        `model`, `num_tokens` (in the middle of these steps), `loss`.
    """
    rows = []
    for name, each in losses.items():
        pieces = np.array_split(np.asarray(each, dtype=float), min(NUM_POINTS, len(each)))
        ends = np.cumsum([len(piece) for piece in pieces])
        for end, piece in zip(ends, pieces, strict=True):
            tokens = (end - len(piece) / 2) * BATCH_SIZE * CONTEXT_LENGTH
            rows.append({"model": name, "num_tokens": tokens, "loss": piece.mean()})
    return pd.DataFrame(rows)


def losses_figure(losses: Mapping[str, Sequence[float]], source: CopySource) -> Html:
    """Training loss over tokens beside the entropies of the source."""
    least = source.least_loss(CONTEXT_LENGTH)
    return show(
        figures.losses(curves(losses), source, least, SMALL_LABELS),
        name="model-losses",
        alt="Training losses falling over tokens, with dotted lines at three entropies of the source.",
        caption="Training loss of models of a million parameters over the tokens they have seen, each token once, "
        f"so that it is a test loss too. A token repeats the one {source.distance} back with probability "
        f"{source.copying:g}. Dotted lines: least losses of a model that sees nothing, the last token, everything.",
    )


def losses_table(
    losses: Mapping[str, float], shapes: Mapping[str, Architecture], plans: Mapping[str, Plan], source: CopySource
) -> Html:
    """Parameters, FLOPs, loss on new sequences, and the share of what context can give."""
    rows = [
        {
            "model": SMALL_LABELS[name],
            "params": count(float(num_params(shapes[name]))),
            "tokens": count(plans[name].num_steps * BATCH_SIZE * CONTEXT_LENGTH),
            "flops": power_of_ten(plans[name].flops),
            "loss": f"{loss:.2f}",
            "learned": percent(learned(loss, source)),
        }
        for name, loss in losses.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="model-losses",
        caption="Small models after training at equal FLOPs: loss on sequences that none has seen. Learned: how "
        "much of the way from the entropy given the last token to the least loss. The last digit may differ between "
        "machines.",
        labels={"params": "N", "tokens": "D", "flops": "C (FLOP)", "loss": "loss (nats/token)"},
    )


def source_facts(source: CopySource) -> dict[str, object]:
    """The entropies of the source."""
    return {
        "c13_vocab": source.vocab_size,
        "c13_distance": source.distance,
        "c13_copying": f"{source.copying:g}",
        "c13_unigram": f"{source.unigram_entropy:.2f}",
        "c13_last": f"{source.last_token_entropy:.2f}",
        "c13_rate": f"{source.entropy_rate:.2f}",
        "c13_least": f"{source.least_loss(CONTEXT_LENGTH):.2f}",
        "c13_gain": f"{source.last_token_entropy - source.entropy_rate:.2f}",
    }


def plan_facts(shapes: Mapping[str, Architecture], plans: Mapping[str, Plan], seconds: float) -> dict[str, object]:
    """Sizes, steps, rates and FLOPs of the training."""
    sizes = [float(num_params(each)) for each in shapes.values()]
    each = list(plans.values())
    return {
        "c13_small": span_text(sizes, lambda v: count(v)),
        "c13_steps": span_text([plan.num_steps for plan in each], lambda v: f"{v:.0f}"),
        "c13_batch": f"{BATCH_SIZE * CONTEXT_LENGTH:,}",
        "c13_rate_of_learning": span_text([plan.learning_rate for plan in each], lambda v: f"{v:.4f}"),
        "c13_core": f"{CORE_FLOPS_PER_S / 1e9:.0f}",
        "c13_seconds": f"{seconds:g}",
        "c13_small_flops": power_of_ten(float(np.mean([plan.flops for plan in each])), 1),
    }


def learning_facts(losses: Mapping[str, float], source: CopySource) -> dict[str, object]:
    """Which models have learned to copy, in words that another machine's last digits do not change."""
    return {"c13_learned": learned_verdict({name: learned(loss, source) for name, loss in losses.items()})}


def learned_verdict(shares: Mapping[str, float]) -> str:
    """A verdict: which models have learned most of what context can give, some of it, or next to none."""
    kinds: dict[str, list[str]] = {"most": [], "some": [], "next to nothing": []}
    for name, share in shares.items():
        kinds["most" if share >= MOST else "some" if share >= SOME else "next to nothing"].append(_the(name))
    parts = []
    for kind, names in kinds.items():
        if names:
            verb = "have" if len(names) > 1 else "has"
            parts.append(f"{listed(names)} {verb} learned {kind}{' of it' if kind != 'next to nothing' else ''}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _the(name: str) -> str:
    return f"the {SMALL_LABELS[name]}"


def generations_table(table: pd.DataFrame, source: CopySource) -> Html:
    """What the models say (`companion.chapters.ch13.small.generations`)."""
    return show_table(
        table,
        name="model-said",
        caption=f"The first tokens that each model draws after the same {source.distance}, as letters. Repeats: share "
        f"of tokens that equal the one {source.distance} back, in 16 sequences. Surprise: mean −log p by the source "
        "itself.",
        formats={"repeats": percent, "surprise": "{:.2f}"},
        labels={"text": "it says", "surprise": "surprise (nats/token)"},
    )


def distances_table(losses: Mapping[int, tuple[float, CopySource]]) -> Html:
    """Solution of an exercise: what one model learns of sources that repeat tokens from farther or less far back."""
    rows: list[dict[str, Any]] = [
        {"distance": distance, "last": each.last_token_entropy, "least": each.least_loss(CONTEXT_LENGTH), "loss": loss}
        | {"learned": percent(learned(loss, each))}
        for distance, (loss, each) in sorted(losses.items(), key=lambda item: item[0])
    ]
    return show_table(
        pd.DataFrame(rows),
        caption="An xLSTM after the same steps on sources that repeat the token some places back, nats per token.",
        formats=dict.fromkeys(("last", "least", "loss"), "{:.2f}"),
        labels={"last": "entropy given the last token", "least": "least loss"},
    )
