"""Scatter of the optima about a power law, and exponents that add up to one."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch03.scatter import (
    exponent_sums,
    flops_per_param_and_token,
    scatter_of_optima,
    show_exponent_sums,
    show_scatter,
)
from companion.fitting.isoflop.goodness_of_fit import law_scatter
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.fitting.power_law import fit_power_law
from companion.runs.load import load_paper_runs

BUDGETS = (6e18, 1e19, 3e19, 1e20)


def synthetic(seed: int, noise: float = 0.01, bend: float = 0.0) -> IsoflopFit:
    """Parabolas around N* = 0.01·C^0.55, the last optimum `bend` decades off."""
    rng, tables = np.random.default_rng(seed), []
    for index, budget in enumerate(BUDGETS):
        distance = np.linspace(-0.5, 0.5, 25)
        size = 0.01 * budget**0.55 * 10**distance * 10 ** (bend * (index == len(BUDGETS) - 1))
        loss = 3 + 0.6 * distance**2 + rng.normal(0, noise, distance.size)
        columns = {"isoflop_budget": budget, "train_flops": budget, "num_params": size, "val_loss": loss}
        tables.append(pd.DataFrame(columns).assign(num_tokens=budget / 6 / size))
    return fit_isoflop(pd.concat(tables), num_resamples=0)


def test_three_exponents_add_up_to_one() -> None:
    sizes = synthetic(1)
    rows = pd.concat(
        pd.DataFrame(
            {"isoflop_budget": p.isoflop_budget, "train_flops": p.train_flops, "num_params": p.x, "val_loss": p.loss}
        )
        for p in sizes.profiles
    )
    tokens = fit_isoflop(rows.assign(num_tokens=rows["train_flops"] / 7 / rows["num_params"] ** 0.9), "num_tokens")
    table = flops_per_param_and_token(sizes, tokens)
    c = fit_power_law(table["mean_train_flops"], table["flops_per_param_and_token"]).law.exponent
    assert sizes.power_law.law.exponent + tokens.power_law.law.exponent + c == pytest.approx(1, abs=1e-12)
    assert list(table["isoflop_budget"]) == list(BUDGETS)


MAIN = [6e18, 1e19, 3e19, 1e20]


@pytest.fixture(scope="module")
def xlstm() -> pd.DataFrame:
    return isoflop_runs(load_paper_runs(), "xlstm", 8192)


def test_scatter_of_main_and_all_budgets(xlstm: pd.DataFrame) -> None:
    table = scatter_of_optima({"xlstm": xlstm}, {"xlstm": MAIN}, 0.4)
    assert table["budgets"].to_list() == ["main", "main", "all", "all"]
    assert table["sizes"].to_list() == ["all", "± 0.4 decades"] * 2
    assert table["optima"].to_list() == [4, 4, 5, 5]
    main = law_scatter(fit_isoflop(xlstm, budgets=MAIN, num_resamples=0))
    assert table.loc[0, "chi2"] == pytest.approx(main.chi_square)
    assert table.loc[0, "p"] == pytest.approx(1 - main.closer)
    assert (table["dof"] == table["optima"] - 2).all()
    text = show_scatter(table).markup.replace("\u00a0", " ")
    assert "± 0.4 decades" in text
    assert "<td>main (4)</td>" in text


def test_two_optima_cannot_be_tested(xlstm: pd.DataFrame) -> None:
    two = xlstm[xlstm["isoflop_budget"].isin(MAIN[:2])]
    table = scatter_of_optima({"xlstm": two}, {"xlstm": MAIN[:2]}, 0.4)
    assert table.empty
    assert {"architecture", "budgets", "sizes", "p"} <= set(table)
    assert "<td" not in show_scatter(table).markup


def test_sums_of_exponents(xlstm: pd.DataFrame) -> None:
    main = {("xlstm", x): fit_isoflop(xlstm, x, budgets=MAIN, num_resamples=0) for x in ("num_params", "num_tokens")}
    table = exponent_sums(main)
    [row] = table.to_dict("records")
    assert row["a + b + c"] == pytest.approx(1, abs=1e-9)
    assert row["a"] == main["xlstm", "num_params"].power_law.law.exponent
    sizes, tokens = (main["xlstm", x].optima[0] for x in ("num_params", "num_tokens"))
    assert row["first"] == pytest.approx(sizes.mean_train_flops / sizes.x_opt / tokens.x_opt)
    assert "xLSTM" in show_exponent_sums(table).markup
