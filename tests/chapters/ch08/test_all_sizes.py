"""The model of all sizes: its errors, its terms, and what limits a pass."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.architectures import preset
from companion.chapters import ch08
from companion.chapters.ch08 import all_sizes
from companion.hardware import get_hardware
from companion.inference.runtime_model import RuntimeModel

PEAKS = get_hardware("h100-sxm")
EXAMPLE = {name: preset(name, "7b") for name in ("transformer", "xlstm")}


def test_errors_of_the_models(timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
    rows = rows_of(ch08.models_table(models, timings, PEAKS))
    for row, model in zip(rows, models.values(), strict=True):
        assert row["timings"].strip() == str(len(model.rows))
        assert float(row["rms error"]) == pytest.approx(np.sqrt(np.mean(model.log_residuals**2)), abs=6e-4)
    assert len(rows_of(ch08.terms_table(models))) == sum(len(m.terms) for m in models.values())
    facts = ch08.model_facts(models, [], timings, PEAKS)
    assert facts["c8_below_roofline"] == "No timing lies below the roofline"
    assert facts["c8_unfitted"].startswith("Every")
    assert facts["c8_rms"] == "0.054 to 0.102"
    slow = replace(PEAKS, peak_flops_per_s=1e13, peak_bytes_per_s=1e11)
    assert "timings lie below" in ch08.model_facts(models, ["x"], timings, slow)["c8_below_roofline"]
    assert ch08.model_facts(models, ["too few"], timings, PEAKS)["c8_unfitted"] == "Not fitted: too few"


def test_a_third_architecture_is_left_to_the_tables_of_all(
    timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]
) -> None:
    more = {**models, ("other", "ttft"): models["transformer", "ttft"]}
    where: Any = (EXAMPLE, "7b", [1])
    assert ch08.regime_facts(more, *where) == ch08.regime_facts(models, *where)
    both = [ch08.shares_figure(each, EXAMPLE, [1], "7b") for each in (more, models)]
    assert both[0].markup == both[1].markup
    assert "other" in text_of(ch08.terms_table(more))


def test_only_the_state_does_not_grow_with_the_context(models: dict[tuple[str, str], RuntimeModel]) -> None:
    grows = {key: all_sizes._depends_on_context(model, EXAMPLE[key[0]]) for key, model in models.items()}
    assert [key for key, each in grows.items() if not each] == [("xlstm", "step_time")]


def test_shares_of_a_step_add_up(models: dict[tuple[str, str], RuntimeModel]) -> None:
    facts = ch08.regime_facts(models, EXAMPLE, "7b", [1, 16])
    part = facts["c8_step_parts_transformer_many"].replace(" and ", ", ")
    shares = [float(each.split(" %")[0]) for each in part.split(", ")]
    assert facts["c8_step_parts_xlstm"].endswith("at either batch")
    assert sum(shares) == pytest.approx(100, abs=1.5)
