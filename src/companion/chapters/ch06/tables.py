"""The tables of chapter 6."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch06.mistakes import Form, compare_forms, compare_searches, reached_by_start, variance_as_error
from companion.chapters.ch06.shown import SETTINGS, not_here
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit
from companion.fitting.multistart import Multistart
from companion.fitting.overtraining import OvertrainingSlopes
from companion.formatting import count, interval, percent, power_of_ten, significant
from companion.plotting import Html, show_table

Styles = dict[str, str | Callable[[Any], str]]
_LAW = ("E", "alpha", "beta", "gamma", "size_exponent")
_SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "size_exponent": "a"}


def _four_digits(*columns: str) -> Styles:
    return dict.fromkeys((*_LAW, *columns), "{:.4f}")


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0:+.4f}"  # no −0.0000


def parabola_errors(biases: pd.DataFrame) -> pd.DataFrame:
    """`companion.chapters.ch06.designs.noise_free_comparison` with relative errors of N* for those of log10 N*."""
    relative = {key: 10 ** biases[key] - 1 for key in ("bias_lowest", "bias_highest")}
    return biases.assign(parametric_error=biases["parametric_error"].abs(), **relative)


def parabolas_table(biases: pd.DataFrame) -> Html:
    """Errors of parabolas on exact losses, by grid of sizes."""
    styles: Styles = {"bias_lowest": "{:+.1%}", "bias_highest": "{:+.1%}", "exponent_bias": _signed}
    return show_table(
        parabola_errors(biases),
        caption="No noise: error of the parabola's N* at the lowest and highest budget, and error of the exponent a of "
        "the power law through the optima; last, the error of a of a parametric fit to the same points.",
        formats=styles | {"parametric_error": "{:.0e}"},
        labels={"bias_lowest": "N*, lowest budget", "bias_highest": "N*, highest budget"}
        | {"exponent_bias": "a, parabolas", "parametric_error": "a, parametric fit"},
    )


def designs_table(designs: pd.DataFrame, ratio: float) -> Html:
    """What the designs of a table can say of the law; `ratio` is where a loss is predicted (tokens per parameter)."""
    conditions = ["condition_number", "condition_number_gamma_fixed"]
    errors = ["exponent_standard_error", "loss_standard_error"]
    styles: Styles = {"lowest_ratio": "{:.1f}", "highest_ratio": "{:.0f}"}
    styles |= dict.fromkeys(conditions, lambda value: significant(value, 3))
    styles |= {"exponent_standard_error": lambda value: significant(value, 2)}
    return show_table(
        designs[["design", "num_runs", "lowest_ratio", "highest_ratio", *conditions, *errors]],
        caption="What the designs can say about the law fitted to all runs. Last column: relative error of the loss at "
        f"the largest size and {ratio:g} tokens per parameter.",
        formats=styles | {"loss_standard_error": lambda value: percent(value, 2)},
        labels={"num_runs": "runs", "lowest_ratio": "M from", "highest_ratio": "to"}
        | {"condition_number": "condition, γ free", "condition_number_gamma_fixed": "γ fixed"}
        | {"exponent_standard_error": "s.e. of a", "loss_standard_error": "s.e. of L"},
    )


def searches_table(fit: Fit, searches: Mapping[str, Multistart]) -> Html:
    """What the plain search reaches under every setting."""
    reached = compare_searches(fit, searches)
    styles: Styles = {"evaluations": "{:.0f}", "within_1e-6": percent, "within_1e-2": percent}
    return show_table(
        reached.assign(setting=reached["setting"].map(SETTINGS)),
        caption="Evaluations of the objective per start, shares of starts near the best, and the lowest of them.",
        formats=styles
        | {"lowest_excess": "{:.1e}", "median_excess": "{:.1e}", "E": "{:.4f}", "size_exponent": "{:.4f}"},
        labels={"within_1e-6": "within 10⁻⁶", "within_1e-2": "within 1 %", "lowest_excess": "lowest, excess"}
        | {"median_excess": "median, excess", "size_exponent": "a of the lowest"},
    )


def starts_table(fit: Fit, search: Multistart) -> Html:
    """From which start values a search arrives."""
    reached = reached_by_start(fit, search)
    words = reached["reached"].map("{:.0%}".format) + " from " + reached["value"].map("{:g}".format)
    arrive = words.groupby(reached["parameter"], sort=False).agg(", ".join)
    return show_table(
        pd.DataFrame({"parameter": arrive.index, "arrive": arrive.to_numpy()}),
        caption="Published tolerances: share of starts that end within 0.1 % of the best objective, by the value they "
        "start from.",
        labels={"parameter": "start of", "arrive": "share that arrives"},
    )


def rounding_table(rounding: pd.DataFrame, fit: Fit, published: bool, train_flops: float) -> Html:
    """Laws with rounded parameters.

    Parameters
    ----------
    rounding
        of `companion.chapters.ch06.rounded`.
    fit
        that to the runs.
    published
        the runs are those of the published headline fit; else all IsoFLOP runs.
    """
    where = "Token/Param runs, the published headline fit" if published else "IsoFLOP runs"
    styles: Styles = {"objective_ratio": "{:.4f}", "rms": "{:.3%}", "mean": "{:+.3%}", "size_exponent": "{:.4f}"}
    return show_table(
        rounding,
        caption=f"One fit ({fit.num_rows} {where}), its log E, log A, log B, α, β, γ rounded, and what the paper "
        f"prints; N* at {power_of_ten(train_flops)} FLOP.",
        formats=styles | {"num_params": count},
        labels={"objective_ratio": "objective over the best", "rms": "rms log residual", "mean": "mean log residual"}
        | {"num_params": "N*", "size_exponent": "a"},
    )


def repeats_table(twice: pd.DataFrame, name: str, num_repeated: int) -> Html:
    """What repeated rows do to a fit; `name` of the architecture, and how many of its runs are counted twice."""
    ends = [interval(pair) for pair in zip(twice["low"], twice["high"], strict=True)]
    return show_table(
        twice.assign(interval=ends).drop(columns=["low", "high"]),
        caption=f"IsoFLOP runs of {label_of(name)}, {num_repeated} of which are counted twice in the published fits. "
        "Width: of the interval, over that of the first row.",
        formats=_four_digits() | {"width": "{:.2f}"},
        labels={"num_rows": "rows", "interval": "95 % interval of a", "width": "width"} | _SYMBOLS,
    )


def six_nd_table(optima: pd.DataFrame) -> Html:
    """Optima along 6ND and along the exact C, of `companion.chapters.ch06.designs.exact_optima`."""
    shown = optima.assign(over=optima["approximate"] / optima["exact"] - 1)
    styles: Styles = {"isoflop_budget": power_of_ten, "approximate": count, "exact": count}
    return show_table(
        shown[
            ["isoflop_budget", "lowest_share", "highest_share", "moved", "approximate", "exact", "over", "excess_loss"]
        ],
        caption="6ND over the exact C within each budget; share of runs that 6ND puts nearer to another budget; "
        "optimum of the same law along 6ND and along the runs' own N and D, and the loss that the difference costs "
        "(nats per token).",
        formats=styles
        | {"lowest_share": "{:.2f}", "highest_share": "{:.2f}", "moved": "{:.0%}", "over": "{:+.1%}"}
        | {"excess_loss": "{:.1e}"},
        labels={"isoflop_budget": "budget (FLOP)", "lowest_share": "6ND/C from", "highest_share": "to"}
        | {"over": "6ND − exact", "moved": "other budget", "approximate": "N*, 6ND", "exact": "N*, exact"}
        | {"excess_loss": "Δ loss"},
    )


def metrics_table(metrics: Mapping[str, tuple[dict[str, float], dict[str, float]]]) -> Html:
    """Predictions by the metric over runs and by that over pairs."""
    rows = [
        {"prediction": name, "mse": runs["mse"], "r2": runs["r2"], "mse_pairs": pairs["mse"], "r2_pairs": pairs["r2"]}
        for name, (runs, pairs) in metrics.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        caption="Three predictions by both metrics.",
        formats={"mse": "{:.2e}", "r2": "{:.4f}", "mse_pairs": "{:.4f}", "r2_pairs": "{:.4f}"},
        labels={
            "mse": "mse over runs",
            "r2": "r² over runs",
            "mse_pairs": "mse over pairs",
            "r2_pairs": "r² over pairs",
        },
    )


def variance_table(slopes: OvertrainingSlopes | None, reason: str) -> Html:
    """Slopes with standard errors and variances, or why the table has none."""
    if slopes is None:
        return not_here(reason)
    return show_table(
        variance_as_error(slopes),
        caption="Slope at each ratio, its standard error and its variance, and how many of each it lies from the "
        "common slope.",
        formats={"tokens_per_param": "{:g}", "eta": "{:.4f}", "eta_standard_error": "{:.4f}", "eta_variance": "{:.1e}"}
        | {"errors_away": "{:.1f}", "variances_away": "{:.0f}"},
        labels={"tokens_per_param": "M", "num_runs": "runs", "eta": "η", "eta_standard_error": "standard error"}
        | {"eta_variance": "variance", "errors_away": "distance (s.e.)", "variances_away": "distance (variances)"},
    )


def forms_table(iso: pd.DataFrame, forms: Mapping[str, Form]) -> Html:
    """The three forms at the corners of the table and at its largest compute."""
    return show_table(
        compare_forms(iso, forms),
        caption="Least squares of log L; rms log residual. Corners: smallest N with largest D, and the other way "
        "round. N*: along C = 6ND at the largest compute, over the largest N of the table.",
        formats={"rms": "{:.2%}", "E": "{:.3f}", "small_long": "{:.3f}", "large_short": "{:.3f}", "optimum": "{:.2f}"},
        labels={"num_free": "parameters", "rms": "rms", "small_long": "small N, large D"}
        | {"large_short": "large N, small D", "optimum": "N*"},
    )


def embedding_table(definitions: pd.DataFrame | None) -> Html:
    """Exponents under three definitions of size and compute; empty without them."""
    if definitions is None:
        return Html("")
    return show_table(
        definitions.drop(columns=["flops", "optima"]),
        caption="Exponents under the three definitions. The parametric a knows N and D only, not C.",
        formats=dict.fromkeys(("alpha", "beta", "isoflop_exponent", "parametric_exponent"), "{:.3f}")
        | {"isoflop_standard_error": "{:.3f}"},
        labels={"isoflop_exponent": "a, parabolas", "isoflop_standard_error": "± s.e.", "alpha": "α", "beta": "β"}
        | {"parametric_exponent": "a, parametric"},
    )


def delta_table(paths: Mapping[str, pd.DataFrame]) -> Html:
    """Fits over δ, of `companion.chapters.ch06.mistakes.delta_path` by set of runs."""
    every = pd.concat([path.assign(runs=name) for name, path in paths.items()])
    return show_table(
        every[["runs", *(column for column in every if column != "runs")]],
        caption="Fits over δ, the share of runs with a residual beyond it, and the rms log residual.",
        formats=_four_digits() | {"huber_delta": "{:g}", "linear": "{:.0%}", "rms": "{:.3%}"},
        labels={"huber_delta": "δ", "linear": "beyond δ", "rms": "rms"} | _SYMBOLS,
    )


def resample_table(resampled: pd.DataFrame) -> Html:
    """The fit to every run once and to one resample, of `companion.chapters.ch06.objectives.one_resample`."""
    return show_table(
        resampled,
        caption="The law fitted to every run once, and to the one resample that the seed 0 draws.",
        formats=_four_digits(),
        labels={"drawn": "runs", "distinct": "different runs", "most": "most often"} | _SYMBOLS,
    )


def squares_table(squares: pd.DataFrame) -> Html:
    """Four objectives on one set of runs, of `companion.chapters.ch06.objectives.squared_twice`."""
    return show_table(
        squares,
        caption="One set of runs, four objectives. Half: the fewest runs that make up half of the objective at its "
        "minimum.",
        formats=_four_digits() | dict.fromkeys(("rms", "largest"), "{:.2%}"),
        labels={"rms": "rms log residual", "largest": "largest", "half": "runs that make up half"} | _SYMBOLS,
    )


def ledger_table(ledger: pd.DataFrame, architecture: str, context_length: int | None) -> Html:
    """Published parametric fits of the Token/Param runs and ours; objectives where there are none."""
    chosen = (ledger["section"] == "parametric_fits") & ledger["quantity"].isin(["alpha", "beta", "gamma", "objective"])
    for words in (f"{architecture} T={context_length} tokenparam", "huber_delta=0.001 fit_gamma=True"):
        chosen &= ledger["entry"].str.contains(words)
    picked = ledger[chosen] if chosen.any() else ledger[ledger["quantity"] == "objective"]
    return show_table(
        picked[["entry", "quantity", "published", "ours", "tolerance", "verdict"]],
        caption="Published parametric fits of the Token/Param runs and ours.",
        formats={"published": "{:.7g}", "ours": "{:.7g}", "tolerance": "{:.1g}"},
    )


# ---- solutions of the exercises ------------------------------------------------------------------


def gaps_table(rows: Sequence[tuple[float, float, float]]) -> Html:
    """Condition numbers at one ratio; rows of the gap of the exponents, prefactors alone, all parameters."""
    gaps = pd.DataFrame(rows, columns=["gap", "prefactors", "all"])
    for name in ("prefactors", "all"):
        gaps[f"{name}, power"] = np.gradient(np.log(gaps[name]), np.log(gaps["gap"]))
    styles: Styles = dict.fromkeys(("prefactors, power", "all, power"), "{:.2f}")
    return show_table(
        gaps,
        caption="One ratio: condition numbers over the gap of the exponents, and their local powers.",
        formats=styles | dict.fromkeys(("prefactors", "all"), lambda value: significant(value, 3)),
        labels={"gap": "α − β", "all": "all parameters", "all, power": "power", "prefactors, power": "power"},
    )


def digits_table(rounding: pd.DataFrame) -> Html:
    """Objective and residuals by the number of decimals."""
    return show_table(
        rounding[["law", "objective_ratio", "rms"]],
        caption="Objective over the best, and rms log residual.",
        formats={"objective_ratio": "{:.6f}", "rms": "{:.4%}"},
        labels={"law": "printed with", "objective_ratio": "objective over the best"},
    )
