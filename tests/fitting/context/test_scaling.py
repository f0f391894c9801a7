"""Optima over the context length: known tables, the published procedure, the bootstrap, bad input."""

import numpy as np
import pandas as pd
import pytest
from context_tables import BUDGETS, CONTEXTS, simulated_contexts

from companion.errors import InputError
from companion.fitting.context.scaling import ContextFit, comparable_architectures, fit_context_optima
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.power_law import fit_power_law
from companion.laws import Parabola
from companion.ledger.entries import load_published
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

RUNS = load_paper_runs()


@pytest.fixture(scope="module")
def fits() -> dict[str, ContextFit]:
    return {name: fit_context_optima(RUNS, name, num_resamples=200) for name in ("transformer", "xlstm")}


def exact_parabolas(exponents: dict[str, float], contexts: tuple[int, ...] = CONTEXTS) -> pd.DataFrame:
    """Losses on exact parabolas whose optima are exact power laws of T."""
    rows = []
    for budget in BUDGETS:
        for context in contexts:
            for x in np.linspace(-0.4, 0.4, 9):
                size = (budget / 1e11) ** 0.5 * 2e4 * context ** exponents["num_params"] * 10**x
                tokens = (budget / 1e11) ** 0.5 * 1e6 * context ** exponents["num_tokens"] * 10**-x
                rows.append((budget, context, size, tokens, 3 + 0.9 * x**2))
    table = pd.DataFrame(rows, columns=["isoflop_budget", "context_length", "num_params", "num_tokens", "val_loss"])
    return table.assign(architecture="mamba", train_flops=table["isoflop_budget"])


def test_exact_power_laws_come_back() -> None:
    fit = fit_context_optima(exact_parabolas({"num_params": -0.2, "num_tokens": 0.1}), num_resamples=50)
    assert fit.architecture == "mamba"
    assert fit.context_lengths == list(CONTEXTS)
    assert fit.budgets == list(BUDGETS)
    assert len(fit.trends) == 2 * len(BUDGETS)
    for trend in fit.trends:
        expected = {"num_params": -0.2, "num_tokens": 0.1}[trend.quantity]
        assert trend.exponent == pytest.approx(expected, abs=1e-9)
        # exact parabolas have no scatter to draw an interval from; none of zero width is made up
        assert np.isnan(trend.interval("exponent")).all()
        base = (trend.isoflop_budget / 1e11) ** 0.5 * {"num_params": 2e4, "num_tokens": 1e6}[trend.quantity]
        assert trend.prefactor == pytest.approx(base, rel=1e-8)
    assert all("no scatter" in note or "lack an optimum" in note for note in fit.warnings)


def test_optima_are_those_of_the_isoflop_procedure(fits: dict[str, ContextFit]) -> None:
    for name, fit in fits.items():
        for context in fit.context_lengths:
            runs = subset(RUNS, architecture=name, context_length=context, experiment="isoflop")
            for quantity in ("num_params", "num_tokens"):
                profiles = fit_isoflop(runs, quantity, num_resamples=0).profiles
                for profile in profiles:
                    ours = fit.optimum(profile.isoflop_budget, context, quantity)
                    if ours is None:
                        assert profile.isoflop_budget not in fit.budgets
                        continue
                    assert profile.fit is not None
                    assert ours.x_opt == pytest.approx(profile.fit.law.x_opt, rel=1e-12)
                    assert ours.mean_train_flops == pytest.approx(profile.mean_train_flops, rel=1e-12)


def test_published_optima_at_other_contexts(fits: dict[str, ContextFit]) -> None:
    checked = 0
    for entry in load_published()["isoflop_optima"]:
        if entry["context_length"] == 8192:
            continue
        ours = fits[entry["architecture"]].optimum(entry["isoflop_budget"], entry["context_length"], entry["x"])
        assert ours is not None
        assert ours.x_opt == pytest.approx(entry["x_opt"], rel=1e-4)
        checked += 1
    assert checked == 8


def test_the_transformer_shrinks_and_the_xlstm_hardly(fits: dict[str, ContextFit]) -> None:
    exponents = {
        name: {(t.isoflop_budget, t.quantity): t for t in fit.trends if t.num_contexts == 3}
        for name, fit in fits.items()
    }
    assert [len(found) for found in exponents.values()] == [6, 6]
    for (_, quantity), trend in exponents["transformer"].items():
        assert trend.interval("exponent")[1] < -0.09, quantity
    for (_, quantity), trend in exponents["xlstm"].items():
        low, high = trend.interval("exponent")
        sign = -1 if quantity == "num_params" else 1
        assert 0 < sign * trend.exponent < 0.06
        assert low < trend.exponent < high


def test_trend_is_the_line_through_the_optima_in_every_resample(fits: dict[str, ContextFit]) -> None:
    fit = fits["xlstm"]
    for trend in fit.trends:
        optima = [fit.optimum(trend.isoflop_budget, t, trend.quantity) for t in trend.context_lengths]
        assert None not in optima
        for at in (0, 17):
            law = fit_power_law(trend.context_lengths, [o.x_opt_resamples[at] for o in optima if o]).law
            assert trend.exponent_resamples[at] == pytest.approx(law.exponent, rel=1e-9)
            assert trend.prefactor_resamples[at] == pytest.approx(law.prefactor, rel=1e-9)


def test_bootstrap_covers_the_standard_error_of_the_parabola(fits: dict[str, ContextFit]) -> None:
    for fit in fits.values():
        for optimum in fit.optima:
            assert optimum.profile.fit is not None
            spread = np.nanstd(np.log10(optimum.x_opt_resamples))
            assert 0.4 < spread / optimum.profile.fit.log10_x_opt_standard_error < 2.0


def test_resamples_keep_the_runs_of_every_profile_and_the_seed() -> None:
    fit, same, other = (fit_context_optima(RUNS, "xlstm", num_resamples=20, seed=s) for s in (1, 1, 2))
    drawn = pd.DataFrame(fit.counts.T, index=pd.MultiIndex.from_frame(fit.runs[["isoflop_budget", "context_length"]]))
    totals = drawn.groupby(level=[0, 1]).agg(["sum", "size"])
    for at in range(20):
        assert (totals[at]["sum"] == totals[at]["size"]).all()
    np.testing.assert_array_equal(fit.counts, same.counts)
    assert (fit.counts != other.counts).any()


def test_no_bootstrap() -> None:
    fit = fit_context_optima(RUNS, "transformer", num_resamples=0)
    assert all(np.isnan(bound) for trend in fit.trends for bound in trend.interval("exponent"))
    assert fit.trends[0].lost_resamples == 0
    assert fit.trends_table()["exponent"].notna().all()


def test_weights_are_repeated_rows() -> None:
    runs = simulated_contexts(noise=0.004, budgets=BUDGETS[:1])
    runs["times"] = np.tile([1, 2, 0], len(runs))[: len(runs)]
    weighted = fit_context_optima(runs, weights="times", num_resamples=0)
    repeated = fit_context_optima(runs.loc[runs.index.repeat(runs["times"])], num_resamples=0)
    for one, two in zip(weighted.optima, repeated.optima, strict=True):
        assert one.x_opt == pytest.approx(two.x_opt, rel=1e-9)


def test_budgets_read_off_the_compute_are_matched_across_contexts() -> None:
    named = fit_context_optima(RUNS, "transformer", num_resamples=0)
    read = fit_context_optima(
        RUNS[RUNS["isoflop_budget"].notna()].drop(columns="isoflop_budget"), "transformer", num_resamples=0
    )
    assert len(read.trends) == len(named.trends) == 6
    for one, two in zip(named.trends, read.trends, strict=True):
        assert one.exponent == pytest.approx(two.exponent, rel=1e-12)
        assert one.isoflop_budget == pytest.approx(two.isoflop_budget, rel=0.05)


def test_warnings() -> None:
    only = fit_context_optima(RUNS, "xlstm", num_resamples=0).warnings
    assert [note for note in only if "one context length only" in note] == list(only)
    assert len(only) == 2
    two = fit_context_optima(RUNS[RUNS["context_length"] != 2048], "xlstm", num_resamples=0)
    assert sum("two contexts leave no degree of freedom" in note for note in two.warnings) == 6
    assert all(trend.num_contexts == 2 for trend in two.trends)
    assert two.trends_table()["exponent_standard_error"].isna().all()
    small = RUNS[(RUNS["context_length"] != 16384) | (RUNS["num_params"] < 3e8)]
    assert any(
        "T = 16384, num_params" in note and "outside the sampled" in note
        for note in fit_context_optima(small, "transformer", num_resamples=0).warnings
    )


def test_profile_without_a_minimum_takes_no_part() -> None:
    runs = exact_parabolas({"num_params": -0.2, "num_tokens": 0.1})
    bent = (runs["isoflop_budget"] == BUDGETS[0]) & (runs["context_length"] == 2048)
    runs.loc[bent, "val_loss"] = 6 - runs.loc[bent, "val_loss"]
    fit = fit_context_optima(runs, num_resamples=5)
    first = [trend for trend in fit.trends if trend.isoflop_budget == BUDGETS[0]]
    assert [trend.context_lengths for trend in first] == [(8192, 16384)] * 2
    assert any("curvature is not positive" in note for note in fit.warnings)
    optimum = fit.optimum(BUDGETS[0], 2048, "num_params")
    assert optimum is not None
    assert np.isnan(optimum.x_opt)
    assert np.isnan(optimum.interval()).all()


def test_comparable_architectures() -> None:
    assert comparable_architectures(RUNS, ["xlstm", "mamba", "transformer"]) == ["xlstm", "transformer"]
    assert comparable_architectures(RUNS[RUNS["context_length"] == 8192], ["xlstm"]) == []
    assert comparable_architectures(RUNS.drop(columns="context_length"), ["xlstm"]) == []


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: r, {}, "runs of 2 architectures (transformer, xlstm): choose one"),
        (lambda r: r, {"architecture": "mamba"}, "no runs with architecture mamba"),
        (lambda r: r.drop(columns="context_length"), {"architecture": "xlstm"}, "no column 'context_length'"),
        (
            lambda r: r[r["context_length"] == 8192],
            {"architecture": "xlstm"},
            "no budget of xlstm has an optimum at two context lengths; there are T = 8192",
        ),
        (lambda r: r, {"architecture": "xlstm", "weights": "nope"}, "there is no column 'nope'"),
    ],
)
def test_bad_input(change, options: dict[str, str], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as raised:
        fit_context_optima(change(RUNS), num_resamples=0, **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_change_is_the_mean_over_the_budgets(fits: dict[str, ContextFit]) -> None:
    for fit in fits.values():
        for quantity in ("num_params", "num_tokens"):
            optima = [[fit.optimum(b, t, quantity) for t in (2048, 16384)] for b in fit.budgets]
            ratios = [b.x_opt / a.x_opt for a, b in optima if a and b]
            value, low, high = fit.change(quantity, 2048, 16384)
            assert len(ratios) == 3
            assert value == pytest.approx(np.prod(ratios) ** (1 / 3))
            assert low < value < high
            assert fit.change(quantity, 16384, 2048)[0] == pytest.approx(1 / value)
    with pytest.raises(InputError, match="no budget of xlstm has an optimum at T = 2048 and T = 4096"):
        fits["xlstm"].change("num_params", 2048, 4096)


def test_unknown_parameter_of_a_trend(fits: dict[str, ContextFit]) -> None:
    with pytest.raises(InputError, match="no parameter 'slope'"):
        fits["xlstm"].trends[0].interval("slope")


def test_tables_say_the_same_as_the_objects(fits: dict[str, ContextFit]) -> None:
    fit = fits["transformer"]
    table, optima = fit.trends_table(0.9), fit.optima_table(0.9)
    assert table["exponent_interval"].tolist() == [trend.interval("exponent", 0.9) for trend in fit.trends]
    assert optima["x_opt"].tolist() == [optimum.x_opt for optimum in fit.optima]
    assert (optima["loss_opt_interval"].str[0] < optima["loss_opt"]).all()
    law = fit.optima[0].profile.fit
    assert law is not None
    assert isinstance(law.law, Parabola)
    assert optima["num_runs"].sum() == 2 * sum(
        ((RUNS["architecture"] == "transformer") & (RUNS["isoflop_budget"] == b)).sum() for b in fit.budgets
    )


def test_intervals_of_small_profiles_hold_the_truth() -> None:
    """Three contexts that change nothing, five sizes each: N* stays where it is, and the exponent over T is 0."""
    z = np.linspace(-0.5, 0.5, 5)
    rows = pd.DataFrame({"z": np.tile(z, 3), "context_length": np.repeat([2048, 8192, 32768], 5)})
    rows = rows.assign(num_params=(1e9 * 10 ** rows["z"]).round(), train_flops=1e20, isoflop_budget=1e20)
    rows = rows.assign(num_tokens=1e20 / 6 / rows["num_params"], architecture="mamba")
    held, given = dict.fromkeys(("optimum", "exponent"), 0), dict.fromkeys(("optimum", "exponent"), 0)
    for seed in range(60):
        scatter = np.random.default_rng(seed).normal(0, 0.002, len(rows))
        table = rows.assign(val_loss=2.5 + 0.15 * rows["z"] ** 2 + scatter)
        fit = fit_context_optima(table, num_resamples=200, seed=seed)
        optimum = fit.optimum(1e20, 2048, "num_params")
        assert optimum is not None
        for name, (low, high), truth in (
            ("optimum", optimum.interval(), 1e9),
            ("exponent", fit.trends[0].interval("exponent"), 0.0),
        ):
            given[name] += int(np.isfinite(low))
            held[name] += int(low <= truth <= high)
    for name, number in given.items():
        assert number >= 45, name
        assert held[name] >= 0.93 * number - 3 * np.sqrt(0.93 * 0.07 * number), name
