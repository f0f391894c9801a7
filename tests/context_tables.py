"""IsoFLOP tables at several contexts, simulated from one loss law and exact accounting."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.accounting import count_flops, num_params
from companion.laws import LossSurface, optimum
from companion.runs.load import SHAPE_COLUMNS
from companion.runs.shape_family import FamilyScale, paper_family

#: A law near that of the paper's Transformer runs.
LAW = LossSurface(E=2.2, A=60_000.0, B=3e8, alpha=0.62, beta=0.92, gamma=0.62)
CONTEXTS = (2048, 8192, 16384)
BUDGETS = (1e19, 3e19, 1e20)


def simulated_contexts(
    architecture: str = "transformer",
    contexts: Sequence[int] = CONTEXTS,
    budgets: Sequence[float] = BUDGETS,
    *,
    worth: Mapping[int, float] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Models of the paper's family around each optimum, at their budget.

    `worth` says by context how many tokens a token counts as; `noise` is the standard deviation of the loss in nats per
    token.
    """
    family, rng, rows = paper_family(architecture), np.random.default_rng(seed), []
    for context in contexts:
        scale = FamilyScale(family=family, context_length=context)
        for budget in budgets:
            best = optimum(LAW, scale, budget).num_params[0]
            models = {family.rounded(best * factor) for factor in np.geomspace(0.4, 2.5, 12)}
            for model in sorted(models, key=num_params):
                size = num_params(model)
                tokens = round(budget / count_flops(model, context).train_flops_per_token)
                loss = LAW.predict(size, (worth or {}).get(context, 1.0) * tokens) + rng.normal(0, noise)
                shapes = {name: getattr(model, name) for name in SHAPE_COLUMNS}
                rows.append(
                    {"architecture": architecture, "experiment": "isoflop", "context_length": context}
                    | {"isoflop_budget": budget, "num_params": size, "num_tokens": tokens, "train_flops": budget}
                    | {"val_loss": loss, **shapes}
                )
    return pd.DataFrame(rows)
