"""Compute at equal loss under several counts, on fronts that are known."""

import numpy as np
import pandas as pd
import pytest

from companion.fitting.equal_loss import compute_factors


def table(context_length: int = 0, factor: float = 2.0) -> pd.DataFrame:
    """Two architectures on one power law; the second needs `factor` times the compute."""
    flops = 10 ** np.linspace(18, 20, 9)
    loss = 3 * (flops / 1e18) ** -0.05
    parts = [
        pd.DataFrame({"architecture": name, "train_flops": flops * scale, "val_loss": loss})
        for name, scale in (("a", 1.0), ("b", factor))
    ]
    runs = pd.concat(parts, ignore_index=True)
    return runs.assign(context_length=context_length) if context_length else runs


def test_factor_under_each_count() -> None:
    runs = table()
    other = runs["train_flops"].where(runs["architecture"] == "a", 3 * runs["train_flops"])
    found = compute_factors(runs, {"own": runs["train_flops"], "other": other}, "a", "b").set_index("convention")
    assert found["flops_factor"].tolist() == pytest.approx([2, 6])
    assert found["smallest"].tolist() == pytest.approx([2, 6])
    assert found["largest"].tolist() == pytest.approx([2, 6])
    assert found["share_lower"].tolist() == [1, 1]
    assert "context_length" not in found


def test_every_context_on_its_own() -> None:
    runs = pd.concat([table(2048, 2.0), table(8192, 3.0)], ignore_index=True)
    found = compute_factors(runs, pd.DataFrame({"own": runs["train_flops"]}), "a", "b")
    assert found["context_length"].tolist() == [2048, 8192]
    assert found["flops_factor"].tolist() == pytest.approx([2, 3])


def test_what_cannot_be_compared_is_left_out() -> None:
    runs = table()
    missing = runs["train_flops"].where(runs.index > 0)
    apart = runs["train_flops"].where(runs["architecture"] == "a", 1e6 * runs["train_flops"])
    found = compute_factors(runs, {"missing": missing, "apart": apart}, "a", "b")
    assert found.empty
    assert compute_factors(runs, {"own": runs["train_flops"]}, "a", "c").empty
