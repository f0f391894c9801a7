"""Models of about a million parameters, how long they are trained, and what they learn of a source."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.accounting import count_flops, num_params
from companion.accounting.conventions import PRODUCTS
from companion.architectures import Architecture, make_architecture
from companion.chapters.ch13.source import CopySource
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.models import LanguageModel, generate

#: Widths of the small models: about a million parameters.
WIDTHS: dict[str, Any] = {"d_model": 128, "n_layers": 5, "n_heads": 4}
#: What is added to these for each model that a page can train.
SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {"name": "transformer"},
    "xlstm": {"name": "xlstm"},
    "hybrid": {"name": "xlstm", "attention_every": 3, "attention_heads": 4},
}
#: FLOP/s that we count on for a core of a CPU. It decides how many steps are made, so that a page built twice has the
#: same numbers whatever else the machine does.
CORE_FLOPS_PER_S = 45e9
#: Sequences and tokens of a training step.
BATCH_SIZE, CONTEXT_LENGTH = 8, 128
#: Share of the steps over which the learning rate rises; then it falls to zero along half a cosine.
WARM_UP = 0.1
#: Sequences on which a trained model is tested.
NUM_TEST = 64


def small_shapes(names: Sequence[str], vocab_size: int) -> dict[str, Architecture]:
    """Architectures of about a million parameters, by name: of `transformer`, `xlstm` and `hybrid`.

    Raises
    ------
    InputError
        for another name.
    """
    if unknown := [name for name in names if name not in SHAPES]:
        raise InputError(f"models: {unknown[0]!r} is not one of {', '.join(SHAPES)}")
    return {name: make_architecture(vocab_size=vocab_size, **WIDTHS, **SHAPES[name]) for name in names}


@dataclass(frozen=True)
class Plan:
    """How a model is trained: its steps and the rate of the optimizer.

    Attributes
    ----------
    num_steps
        of `BATCH_SIZE` sequences.
    learning_rate
        the highest.
    flops
        of the training, by the accounting.
    """

    num_steps: int
    learning_rate: float
    flops: float

    @classmethod
    def of(cls, architecture: Architecture, seconds: float) -> "Plan":
        """As many steps as a core does in a time at `CORE_FLOPS_PER_S`, and the rate that depends on the size alone.

        The rate is 0.003239 − 0.0001395 ln N (arXiv 2001.08361, appendix D.6), N without embeddings.
        """
        counted = count_flops(architecture, CONTEXT_LENGTH, PRODUCTS)
        tokens = BATCH_SIZE * CONTEXT_LENGTH
        num_steps = max(1, round(seconds * CORE_FLOPS_PER_S / counted.train_flops(tokens)))
        inner = num_params(architecture) - 2 * architecture.vocab_size * architecture.d_model
        rate = 0.003239 - 0.0001395 * math.log(inner)
        return cls(num_steps, rate, float(counted.train_flops(tokens * num_steps)))

    def optimizer(self, model: LanguageModel) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW and the schedule of its rate."""
        made = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
        return made, torch.optim.lr_scheduler.LambdaLR(made, self._share)

    def batches(self, source: CopySource, seed: int) -> Iterator[Tensor]:
        """Fresh tokens (B, T + 1) for every step: no sequence is seen twice."""
        rng = np.random.default_rng(seed)
        for _ in range(self.num_steps):
            yield torch.from_numpy(source.sample(BATCH_SIZE, CONTEXT_LENGTH + 1, rng))

    def _share(self, step: int) -> float:
        """Of the highest rate, at a step."""
        rising = max(1.0, WARM_UP * self.num_steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1.0, self.num_steps - rising))


@torch.no_grad()
def held_out_losses(models: Mapping[str, LanguageModel], source: CopySource, seed: int = 1) -> dict[str, float]:
    """Mean loss of every model on sequences that none has seen, nats per token."""
    rng = np.random.default_rng([seed, NUM_TEST])
    tokens = torch.from_numpy(source.sample(NUM_TEST, CONTEXT_LENGTH + 1, rng))
    return {name: float(model.loss(tokens)) for name, model in models.items()}


def learned(loss: float, source: CopySource) -> float:
    """Share of what a model can gain from more than the last token: 0 at the entropy given it, 1 at the least loss."""
    least = source.least_loss(CONTEXT_LENGTH)
    return (source.last_token_entropy - loss) / (source.last_token_entropy - least)


def generations(
    models: Mapping[str, LanguageModel], source: CopySource, num_tokens: int, seed: int = 0
) -> pd.DataFrame:
    """Tokens that every model draws after the same prompt, and how likely the source finds them.

    Returns
    -------
    DataFrame
        `model`, `text` (first tokens of the first of 16 sequences, as letters), `repeats` (share of tokens that equal
        the one `distance` back), `surprise` (nats per token, by the source); the last row is the source itself.
    """
    rng = np.random.default_rng([seed, num_tokens])
    whole = source.sample(16, source.distance + num_tokens, rng)
    prompt = torch.from_numpy(whole[:, : source.distance])
    rows = []
    for name, model in models.items():
        generator = torch.Generator().manual_seed(seed)
        drawn = generate(model, prompt, num_tokens, temperature=1.0, generator=generator)
        rows.append(_said(label_of(name), torch.cat((prompt, drawn), dim=1).numpy(), source))
    return pd.DataFrame([*rows, _said("the source", whole, source)])


def _said(name: str, tokens: Any, source: CopySource) -> dict[str, Any]:
    same = tokens[:, source.distance :] == tokens[:, : -source.distance]
    text = "".join(chr(ord("A") + int(token)) for token in tokens[0, source.distance :][:24])
    return {"model": name, "text": text, "repeats": float(same.mean()), "surprise": source.surprise(tokens)}
