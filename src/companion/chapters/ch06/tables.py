"""The tables of chapter 6."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch06.mistakes import (
    Form,
    Repeats,
    compare_forms,
    compare_searches,
    reached_by_start,
    variance_as_error,
)
from companion.chapters.ch06.shown import SETTINGS, SYMBOLS, delta_text, named, not_here
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit
from companion.fitting.multistart import Multistart
from companion.fitting.overtraining import OvertrainingSlopes
from companion.formatting import count, interval, percent, power_of_ten, signed, signed_percent, significant
from companion.plotting import Html, show_table

Styles = dict[str, str | Callable[[Any], str]]
_LAW = ("E", "alpha", "beta", "gamma", "size_exponent")


def _four_digits(*columns: str) -> Styles:
    return dict.fromkeys((*_LAW, *columns), "{:.4f}")


def turned(table: pd.DataFrame, key: str, formats: Styles, labels: Mapping[str, str]) -> pd.DataFrame:
    """A table of few rows and many columns with both exchanged, as text; values of `key` become the headings.

    Columns without a format are shown as they are, `labels` name the new rows in their order.
    """
    rows: dict[str, list[str]] = {"quantity": list(labels.values())}
    for record in table.to_dict("records"):
        cells = []
        for column in labels:
            style = formats.get(column, "{}")
            missing = pd.api.types.is_scalar(record[column]) and pd.isna(record[column])
            text = style.format(record[column]) if isinstance(style, str) else style(record[column])
            cells.append("–" if missing else text)
        rows[str(record[key])] = cells
    return pd.DataFrame(rows)


def _excess(value: float) -> str:
    return significant(value, 2) if value >= 1e-3 else power_of_ten(value)


def parabola_errors(biases: pd.DataFrame) -> pd.DataFrame:
    """`companion.chapters.ch06.designs.noise_free_comparison` with relative errors of N* for those of log10 N*."""
    relative = {key: 10 ** biases[key] - 1 for key in ("bias_lowest", "bias_highest")}
    return biases.assign(parametric_error=biases["parametric_error"].abs(), **relative)


def parabolas_table(biases: pd.DataFrame) -> Html:
    """Errors of parabolas on exact losses, by grid of sizes."""
    styles: Styles = dict.fromkeys(("bias_lowest", "bias_highest"), partial(signed_percent, decimals=1))
    return show_table(
        parabola_errors(biases),
        name="pitfalls-parabolas",
        caption="Exact losses, no noise: error of the parabola's N* at the lowest and the highest budget, of the "
        "exponent a through the parabolas' optima, and of a from a parametric fit to the same points.",
        formats=styles | {"exponent_bias": signed, "parametric_error": lambda value: power_of_ten(value, 1)},
        labels={"grid": "grid of sizes", "bias_lowest": "N*, lowest budget", "bias_highest": "N*, highest budget"}
        | {"exponent_bias": "a, parabolas", "parametric_error": "a, parametric fit"},
    )


def designs_table(designs: pd.DataFrame, ratio: float) -> Html:
    """What the designs of a table can say of the law; `ratio` is where a loss is predicted (tokens per parameter)."""
    conditions = ["condition_number", "condition_number_gamma_fixed"]
    errors = ["exponent_standard_error", "loss_standard_error"]
    spans = zip(designs["lowest_ratio"], designs["highest_ratio"], strict=True)
    shown = designs.assign(
        design=designs["design"].map(named),
        span=[f"{low:.1f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high:.0f}" for low, high in spans],
    )
    styles: Styles = dict.fromkeys(conditions, lambda value: significant(value, 3))
    styles |= {"exponent_standard_error": lambda value: significant(value, 2)}
    return show_table(
        shown[["design", "num_runs", "span", *conditions, *errors]],
        name="pitfalls-designs",
        caption="What each design can say about the law fitted to all runs: its condition number, and the standard "
        f"errors of a and of the loss at the largest size and M = {ratio:g}.",
        formats=styles | {"loss_standard_error": percent},
        labels={"num_runs": "runs", "span": "M = D/N"}
        | {"condition_number": "condition, γ free", "condition_number_gamma_fixed": "condition, γ fixed"}
        | {"exponent_standard_error": "error of a", "loss_standard_error": "error of L"},
    )


def searches_table(fit: Fit, searches: Mapping[str, Multistart]) -> Html:
    """What the plain search reaches under every setting."""
    reached = compare_searches(fit, searches)
    styles: Styles = {"evaluations": "{:.0f}", "within_1e-6": percent, "within_1e-2": percent}
    styles |= {"lowest_excess": _excess, "median_excess": _excess, "E": "{:.4f}", "size_exponent": "{:.4f}"}
    labels = {"evaluations": "evaluations of the objective per start"}
    labels |= {"within_1e-6": "starts within 10⁻⁶ of the best", "within_1e-2": "starts within 1 % of the best"}
    labels |= {"lowest_excess": "lowest end, relative excess", "median_excess": "median end, relative excess"}
    labels |= {"E": "E of the lowest end", "size_exponent": "a of the lowest end"}
    return show_table(
        turned(reached.assign(setting=reached["setting"].map(SETTINGS)), "setting", styles, labels),
        name="pitfalls-searches",
        caption="What the plain search reaches with each setting of its tolerances.",
    )


def starts_table(fit: Fit, search: Multistart) -> Html:
    """From which start values a search arrives."""
    reached = reached_by_start(fit, search)
    words = reached["value"].map("{:g}".format) + ": " + reached["reached"].map(percent)
    arrive = words.groupby(reached["parameter"], sort=False).agg(", ".join)
    return show_table(
        pd.DataFrame(
            {"parameter": arrive.index.map(lambda name: SYMBOLS.get(name, name)), "arrive": arrive.to_numpy()}
        ),
        name="pitfalls-arrivals",
        caption="Published tolerances: share of the starts that end within 0.1 % of the best objective, by the value "
        "they start from.",
        labels={"arrive": "start value: share that arrives"},
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
    styles: Styles = {
        "objective_ratio": "{:.4f}",
        "rms": partial(percent, decimals=3),
        "mean": partial(signed_percent, decimals=3),
        "size_exponent": "{:.4f}",
    }
    printed = ", and the law as the paper prints it" if published else ""
    return show_table(
        rounding,
        name="pitfalls-rounding",
        caption=f"One fit ({fit.num_rows} {where}) with its log E, log A, log B, α, β and γ rounded{printed}. "
        f"N* is that at {power_of_ten(train_flops)} FLOP.",
        formats=styles | {"num_params": count},
        labels={"objective_ratio": "objective over the best", "rms": "rms log residual", "mean": "mean log residual"}
        | {"law": "printed with", "num_params": "N*", "size_exponent": "a"},
    )


def repeats_table(twice: pd.DataFrame, repeats: Repeats) -> Html:
    """What repeated rows do to a fit, of `companion.chapters.ch06.mistakes.repeated_rows`."""
    ends = [interval(pair) for pair in zip(twice["low"], twice["high"], strict=True)]
    labels = {"num_rows": "rows", "E": "E"} | SYMBOLS | {"interval": "95 % interval of a"}
    labels |= {"width": "width of the interval over the first"}
    repeated = f", {repeats.number} of which count more than once in the published fits" if repeats.number else ""
    return show_table(
        turned(twice.assign(interval=ends), "counted", _four_digits() | {"width": "{:.2f}"}, labels),
        name="pitfalls-repeats",
        caption=f"What repeated rows do to the fit: IsoFLOP runs of {label_of(repeats.name)}{repeated}.",
    )


def six_nd_table(optima: pd.DataFrame) -> Html:
    """Optima along 6ND and along the exact C, of `companion.chapters.ch06.designs.exact_optima`."""
    shares = [
        f"{low:.2f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high:.2f}"
        for low, high in optima[["lowest_share", "highest_share"]].to_numpy()
    ]
    shown = optima.assign(over=optima["approximate"] / optima["exact"] - 1, share=shares)
    styles: Styles = {"isoflop_budget": power_of_ten, "approximate": count, "exact": count}
    return show_table(
        shown[["isoflop_budget", "share", "moved", "approximate", "exact", "over", "excess_loss"]],
        name="pitfalls-six-nd",
        caption="6ND over the exact C; share of the runs that 6ND puts nearer to another budget; optimum of the same "
        "law along 6ND and along the runs' own N and D, and the loss that the difference costs.",
        formats=styles
        | {"moved": partial(percent, decimals=0), "over": partial(signed_percent, decimals=1), "excess_loss": "{:.4f}"},
        labels={"isoflop_budget": "budget (FLOP)", "share": "6ND / C", "moved": "moved runs"}
        | {"over": "difference", "approximate": "N*, 6ND", "exact": "N*, exact C"}
        | {"excess_loss": "added loss (nats/token)"},
    )


def metrics_table(metrics: Mapping[str, tuple[dict[str, float], ...]]) -> Html:
    """Predictions by the metric over runs and by that over pairs."""
    rows = [
        {"prediction": name, "mse": runs["mse"], "r2": runs["r2"], "mse_pairs": pairs["mse"], "r2_pairs": pairs["r2"]}
        for name, (runs, pairs) in metrics.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="pitfalls-metrics",
        caption="Three predictions by both metrics (mse: mean square error, nats²/token²). The metric over pairs "
        "cannot distinguish a fit from its shuffled predictions.",
        formats={"mse": significant, "r2": "{:.4f}", "mse_pairs": "{:.4f}", "r2_pairs": "{:.4f}"},
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
    styles: Styles = {"tokens_per_param": "{:g}", "eta": "{:.4f}", "eta_standard_error": "{:.4f}"}
    styles |= {"eta_variance": power_of_ten, "errors_away": "{:.1f}", "variances_away": "{:.0f}"}
    return show_table(
        variance_as_error(slopes),
        name="pitfalls-variance",
        caption="Slope at each ratio, its standard error and its variance, and its distance from the common slope in "
        "units of each.",
        formats=styles,
        labels={"tokens_per_param": "M", "num_runs": "runs", "eta": "η", "eta_standard_error": "standard error"}
        | {"eta_variance": "variance", "errors_away": "distance (standard errors)"}
        | {"variances_away": "distance (variances)"},
    )


def forms_table(iso: pd.DataFrame, forms: Mapping[str, Form]) -> Html:
    """The three forms at the corners of the table and at its largest compute."""
    return show_table(
        compare_forms(iso, forms).replace(
            {
                "sum, gamma 1": "sum, γ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}1",
                "sum, gamma free": "sum, γ\N{NO-BREAK SPACE}free",
            }
        ),
        name="pitfalls-forms",
        caption="Three forms fitted by least squares of log L: rms log residual, E, the loss at two corners of the "
        "table, and N* at the largest compute, C = 6ND, relative to the largest N of the table.",
        formats={
            "rms": partial(percent, decimals=2),
            "E": "{:.3f}",
            "small_long": "{:.3f}",
            "large_short": "{:.3f}",
            "optimum": "{:.2f}",
        },
        labels={"num_free": "free parameters", "rms": "rms residual", "small_long": "L at small N, large D"}
        | {"large_short": "L at large N, small D", "optimum": "N* / largest N"},
    )


def embedding_table(definitions: pd.DataFrame | None) -> Html:
    """Exponents under three definitions of size and compute; empty without them."""
    if definitions is None:
        return Html("")
    return show_table(
        definitions.drop(columns=["flops", "optima"]),
        name="pitfalls-embedding",
        caption="Exponents under the three definitions. The parametric fit uses N and D only, so its a does not depend "
        "on C.",
        formats=dict.fromkeys(("alpha", "beta", "isoflop_exponent", "parametric_exponent"), "{:.3f}")
        | {"isoflop_standard_error": "{:.3f}"},
        labels={
            "isoflop_exponent": "a, parabolas",
            "isoflop_standard_error": "standard error",
            "alpha": "α",
            "beta": "β",
        }
        | {"parametric_exponent": "a, parametric"},
    )


def delta_tables(paths: Mapping[str, pd.DataFrame]) -> Html:
    """Fits over δ, of `companion.chapters.ch06.mistakes.delta_path`: a table for each set of runs."""
    tables = []
    for number, (name, path) in enumerate(paths.items()):
        stopped = path.loc[path["status"] != "converged", ["huber_delta", "status"]]
        notes = [f" δ = {delta_text(delta)}: {status}." for delta, status in stopped.itertuples(index=False)]
        shown = path[["huber_delta", *_LAW, "linear", "rms"]]
        table = show_table(
            shown,
            name=f"pitfalls-delta-{number + 1}",
            caption=f"{name}: the fit at each δ, the share of the runs with a residual beyond it, and the rms log "
            f"residual.{''.join(notes)}",
            formats=_four_digits()
            | {"huber_delta": delta_text, "linear": partial(percent, decimals=0), "rms": partial(percent, decimals=3)},
            labels={"huber_delta": "δ", "linear": "beyond δ", "rms": "rms residual"} | SYMBOLS,
        )
        tables.append(table.markup)
    return Html("".join(tables))


def resample_table(resampled: pd.DataFrame) -> Html:
    """The fit to every run once and to one resample, of `companion.chapters.ch06.objectives.one_resample`."""
    labels = {"distinct": "different runs", "most": "most often counted", "E": "E"} | SYMBOLS
    return show_table(
        turned(resampled, "drawn", _four_digits(), labels),
        name="pitfalls-resample",
        caption="The law fitted to every run once, and to the one resample that the seed 0 draws.",
    )


def squares_table(squares: pd.DataFrame) -> Html:
    """Four objectives on one set of runs, of `companion.chapters.ch06.objectives.squared_twice`."""
    labels = {"E": "E"} | SYMBOLS | {"rms": "rms log residual", "largest": "largest log residual"}
    labels |= {"half": "runs behind half of the objective"}
    return show_table(
        turned(
            squares,
            "objective",
            _four_digits() | dict.fromkeys(("rms", "largest"), partial(percent, decimals=2)),
            labels,
        ),
        name="pitfalls-squares",
        caption="One set of runs, four objectives. Last row: the fewest runs that make up half of the objective at its "
        "minimum.",
    )


def counts_table(summary: pd.DataFrame) -> Html:
    """How many published numbers come out again, by section: of `companion.ledger.summarize`."""
    return show_table(summary, name="pitfalls-counts", caption="Published numbers behind this chapter.")


def ledger_table(ledger: pd.DataFrame, architecture: str, context_length: int | None) -> Html:
    """Published parametric fits of the Token/Param runs and ours; all objectives where an architecture has none."""
    chosen = (ledger["section"] == "parametric_fits") & ledger["quantity"].isin(["alpha", "beta", "gamma", "objective"])
    for words in (f"{architecture} T={context_length} tokenparam", "huber_delta=0.001 fit_gamma=True"):
        chosen &= ledger["entry"].str.contains(words)
    picked = ledger[chosen] if chosen.any() else ledger[ledger["quantity"] == "objective"]
    return show_table(
        picked[["entry", "quantity", "published", "ours", "tolerance", "verdict"]],
        name="pitfalls-ledger",
        caption="Published parametric fits of the Token/Param runs, and ours.",
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
        name="pitfalls-gaps",
        caption="One ratio: condition numbers over the gap between the exponents, and their local powers of the gap.",
        formats=styles | dict.fromkeys(("prefactors", "all"), lambda value: significant(value, 3)),
        labels={"gap": "α − β", "prefactors": "prefactors alone", "all": "all parameters"}
        | {"prefactors, power": "power, prefactors", "all, power": "power, all"},
    )


def digits_table(rounding: pd.DataFrame) -> Html:
    """Objective and residuals by the number of decimals."""
    return show_table(
        rounding[["law", "objective_ratio", "rms"]],
        name="pitfalls-digits",
        caption="Objective over the best, and rms log residual, by the number of printed decimals.",
        formats={"objective_ratio": "{:.6f}", "rms": partial(percent, decimals=4)},
        labels={"law": "printed with", "objective_ratio": "objective over the best", "rms": "rms log residual"},
    )
