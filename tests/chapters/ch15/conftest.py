"""The recorded study, and the same design as if it were trained whole, with losses of a known law."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch15
from companion.chapters.ch15.study import OwnStudy
from companion.laws import LossSurface

#: Laws of the simulated study; their floor is the entropy that its table names.
FLOOR = 3.0
LAWS = {
    "xlstm": LossSurface(E=FLOOR, A=60.0, B=900.0, alpha=0.3, beta=0.4),
    "transformer": LossSurface(E=FLOOR, A=55.0, B=1100.0, alpha=0.3, beta=0.4),
    "hybrid": LossSurface(E=FLOOR, A=57.0, B=1000.0, alpha=0.3, beta=0.4),
}
#: Standard deviation of a loss, nats per token.
NOISE = 0.004


@pytest.fixture(scope="session")
def study() -> OwnStudy:
    """The recorded study, as far as it is trained."""
    return ch15.load_study(context_length=1024)


@pytest.fixture(scope="session")
def earlier(study: OwnStudy) -> OwnStudy:
    """The earlier one, whose losses are far from the entropy."""
    return ch15.far_study(study)


@pytest.fixture(scope="session")
def whole(study: OwnStudy) -> OwnStudy:
    """Every run of the design; a learning rate off by a factor costs its squared logarithm."""
    assert study.plan is not None
    plan = study.plan.assign(trained=True)
    rng = np.random.default_rng(0)
    loss = np.array(
        [
            float(LAWS[name].predict(size, tokens))
            for name, size, tokens in zip(plan["architecture"], plan["num_params"], plan["num_tokens"], strict=True)
        ]
    )
    usual = plan.groupby(["architecture", "num_params"])["learning_rate"].transform("median")
    swept = (plan["experiment"] == "learning_rate").to_numpy()
    loss += np.where(swept, 0.05 * np.log2(plan["learning_rate"] / usual) ** 2, 0.0)
    columns = ["architecture", "context_length", "num_params", "num_tokens", "train_flops", "experiment"]
    columns += ["isoflop_budget", "seed", "batch_size_seqs", "train_steps", "learning_rate"]
    runs = plan[columns].assign(
        run=plan["run_id"], loss_floor=FLOOR, val_loss=loss + rng.normal(0, NOISE, len(plan)), vocab_size=1024
    )
    return replace(study, runs=runs.assign(train_loss=runs["val_loss"]), logs=None, curves=None, plan=plan)


@pytest.fixture(scope="session")
def steps() -> pd.DataFrame:
    """Two launches of two models, the larger one better used."""
    rows = []
    for number, size in ((345_936, "0.3m"), (17_413_704, "17m")):
        for launch, share in (("eager", 0.01), ("graph", 0.05)):
            rows.append(
                {
                    "architecture": "xlstm",
                    "size": size,
                    "num_params": number,
                    "vocab_size": 1024,
                    "context_length": 1024,
                    "tokens_per_step": 65536,
                    "launch": launch,
                    "seconds_per_step": 1e-3 * number / 1e6 / share,
                    "seconds_first": 12.0,
                    "utilization": share * (1 + number / 1e7),
                    "peak_memory_bytes": 3e9,
                    "predicted_memory_bytes": 4e9,
                    "computing": 1e-3 * number / 1e6,
                    "moving": 1e-3,
                    "latency": 2e-3,
                }
            )
    return pd.DataFrame(rows)
