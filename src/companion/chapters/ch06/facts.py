"""What the sections of chapter 6 conclude: a `Pitfall` from each, and values of other sentences."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch06.designs import embedding_params, exact_exponent, size_exponent
from companion.chapters.ch06.mistakes import (
    Form,
    Repeats,
    compare_forms,
    compare_laws,
    compare_searches,
    printed_laws,
    reached_by_start,
    rounded_laws,
    variance_as_error,
)
from companion.chapters.ch06.shown import SYMBOLS, delta_text, named
from companion.chapters.ch06.summary import NOT_SEEN, NOT_SHOWN, Facts, Pitfall
from companion.chapters.ch06.tables import parabola_errors
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit, fit
from companion.fitting.multistart import Multistart
from companion.fitting.overtraining import OvertrainingSlopes
from companion.formatting import number_word, percent, power_of_ten, signed, signed_percent, significant, span_text
from companion.inference.published import fit_published
from companion.inference.timings import load_paper_inference
from companion.laws import LossSurface
from companion.ledger import REPRODUCED, load_published

_hundredths = partial(percent, decimals=2)

# ---- the pitfalls, in the order of the page --------------------------------------------------------


def pitfall_skewed(biases: pd.DataFrame, trained_bias: float) -> Pitfall:
    """Parabolas through skewed valleys: `trained_bias` is that of a at the sizes of the runs."""
    errors = parabola_errors(biases)
    ends = errors[["bias_lowest", "bias_highest"]].to_numpy()
    drift = float(errors.loc[errors["grid"] == "drifting", "exponent_bias"].iloc[0])
    span = span_text(ends.ravel(), partial(signed_percent, decimals=1))
    return Pitfall(
        key="skewed",
        name="skewed valley",
        changes="N*; a on moving grids",
        here=f"N* {span}",
        notice="fit exact losses of your law at your own sizes",
        sentence=f"Even without noise the parabola's N* is off by {span} on these grids. The exponent a is off by "
        f"{drift:+.4f} on the drifting grid and by {trained_bias:+.4f} at the sizes that were trained",
        shifts={"parabolas, trained sizes": trained_bias},
    )


def pitfall_one_ratio(designs: pd.DataFrame, curve: pd.DataFrame, table: pd.DataFrame, a: float) -> Pitfall:
    """What the spread of D/N and the choice of a design do; the law is fitted to the runs of every other design."""
    shifts, fitted = {}, ""
    names = set(table["experiment"].dropna()) if "experiment" in table else set()
    for name in sorted(names - {"isoflop"}) if "isoflop" in names else []:
        other = size_exponent(fit(LossSurface, table[table["experiment"] == name]).law)
        shifts[f"other design ({named(name)})"] = other - a
        fitted = f". Fitted to the runs of the other design, {named(name)}, the law has a = {other:.3f}, not {a:.3f}"
    (narrow, condition), (wide, best) = (
        (curve["decades"].iloc[at], significant(curve["gamma_free"].iloc[at])) for at in (0, -1)
    )
    errors = designs["exponent_standard_error"]
    return Pitfall(
        key="one_ratio",
        name="one ratio D/N",
        changes="errors; losses off the ratio",
        here=f"condition number {best} to {condition}",
        notice="check the condition number before the fit and interval widths after it",
        sentence=f"A design of six sizes has the condition number {best} if its ratios span {wide:g} decades, and "
        f"{condition} if they span {narrow:g}. In the designs of this table the standard error of a lies between "
        f"{significant(errors.min(), 2)} and {significant(errors.max(), 2)}{fitted}",
        shifts=shifts,
    )


def pitfall_early(fit: Fit, searches: Mapping[str, Multistart], a: float) -> Pitfall:
    """What the tolerances of a plain search do."""
    reached = compare_searches(fit, searches).set_index("setting")
    shares = [percent(share) if share else "none" for share in reached["within_1e-6"]]
    exact, loose, mean = reached["size_exponent"].tolist()
    return Pitfall(
        key="early",
        name="early stopping",
        changes="everything, at random",
        here=f"a = {exact:.3f}, {loose:.3f}, {mean:.3f}",
        notice="use many starts; tighter tolerances must not move the best",
        sentence=f"Of {len(searches['published'].objective)} starts, {shares[0]} come within 10⁻⁶ of the best "
        f"objective with the published tolerances, {shares[1]} with SciPy's defaults, and {shares[2]} with SciPy's "
        f"defaults on the mean. The lowest end of each search has a = {exact:.3f}, {loose:.3f} and {mean:.3f}",
        shifts={"early stop, SciPy's defaults": loose - a, "early stop, on the mean": mean - a},
    )


def search_facts(fit: Fit, searches: Mapping[str, Multistart]) -> Facts:
    """How many starts, out of how many, and where the lowest of all ends."""
    published = searches["published"]
    least = compare_searches(fit, searches)["lowest_excess"].min()
    lowest = f"At least one start ends below the exact fit, by up to {power_of_ten(-least, 1)}"
    if least >= 0:
        lowest = f"No start ends below the exact fit; the lowest ends {power_of_ten(least, 1)} above it"
    return {
        "c6_num_starts": str(len(published.objective)),
        "c6_grid_size": f"{published.grid_size:,}",
        "c6_lowest": f"{lowest}, relative to its objective",
    }


def printed_entries(architecture: str, context_length: int | None) -> list[Mapping[str, Any]]:
    """Rows of the headline fit in `data/published.yaml` that print two decimals; empty where there are none."""
    return [
        entry
        for entry in load_published()["parametric_fits"]
        if (entry["architecture"], entry["context_length"]) == (architecture, context_length)
        and entry["printed_digits"].startswith("2 decimals")
        and entry["huber_delta"] == 1e-3
    ]


def rounded(
    fit: Fit, printed: Sequence[Mapping[str, Any]], train_flops: float, decimals: Sequence[int]
) -> pd.DataFrame:
    """`rounded_laws` of a fit, followed by the laws that the paper prints."""
    tables = [compare_laws(fit, printed_laws(entry), train_flops) for entry in printed]
    return pd.concat([rounded_laws(fit, train_flops, decimals), *tables], ignore_index=True)


def pitfall_rounding(rounding: pd.DataFrame, decimals: Sequence[int]) -> Pitfall:
    """What the first number of decimals does, and the laws as printed."""
    full, coarse, *others = rounding.to_dict("records")
    printed = " and ".join(f"{row['objective_ratio']:.1f}" for row in others[len(decimals) - 1 :])
    as_printed = f". For the law as the paper prints it, the objective is {printed} times the best" if printed else ""
    return Pitfall(
        key="rounding",
        name="rounding",
        changes="losses and residuals",
        here=f"objective × {coarse['objective_ratio']:.1f}",
        notice="evaluate the printed law on the runs it summarizes",
        sentence=f"With {decimals[0]} decimals the objective is {coarse['objective_ratio']:.1f} times the best, and "
        f"the rms log residual is {_hundredths(coarse['rms'])}, not {_hundredths(full['rms'])}{as_printed}",
        shifts={f"rounded to {decimals[0]} decimals": coarse["size_exponent"] - full["size_exponent"]},
    )


def rounded_exponent(rounding: pd.DataFrame) -> str:
    """How far the first number of decimals moves a."""
    return f"{rounding['size_exponent'].iloc[1] - rounding['size_exponent'].iloc[0]:+.4f}"


def pitfall_repeated(twice: pd.DataFrame, repeats: Repeats) -> Pitfall:
    """What repeated rows do, of `companion.chapters.ch06.mistakes.repeated_rows` for the runs of one architecture."""
    once, more, *_ = twice.to_dict("records")
    moved, label = more["size_exponent"] - once["size_exponent"], label_of(repeats.name)
    counted = f"If every run of {label} is listed twice,"
    if repeats.number:
        share = f"{repeats.number} of {len(repeats.runs)} {label} runs"
        counted = f"In the published fits, {share} count more than once:"
    return Pitfall(
        key="repeated",
        name="repeated rows",
        changes="a slightly, its interval more",
        here=f"interval × {more['width']:.2f}",
        notice="look for equal N, D and loss; count distinct runs",
        sentence=f"{counted} a moves by {signed(moved)}, and its interval becomes {more['width']:.2f} times as wide",
        shifts={f"repeated rows ({label})": moved} if repeats.number else {},
    )


def pitfall_six_nd(optima: pd.DataFrame, a: float) -> Pitfall:
    """What 6ND does, of `companion.chapters.ch06.designs.exact_optima`."""
    over, exact = (optima["approximate"] / optima["exact"] - 1).dropna(), exact_exponent(optima)
    span = span_text(over, partial(signed_percent, decimals=1))
    shares = f"{optima['lowest_share'].min():.2f} to {optima['highest_share'].max():.2f}"
    return Pitfall(
        key="six_nd",
        name="6ND for C",
        changes="N*, a, the budgets",
        here=f"N* {span}",
        notice="compute C/(ND) of every run: it must not vary with size",
        sentence=f"Here 6ND is {shares} of the exact C. The optimum N* of the same law moves by {span}, and its "
        f"exponent is {a:.3f} along 6ND but {exact:.3f} along the exact count",
        shifts={"6ND in place of C": a - exact},
    )


def pitfall_pairs(metrics: Mapping[str, tuple[dict[str, float], ...]], candidates: pd.DataFrame, a: float) -> Pitfall:
    """Which fit a metric over all pairs selects; metrics by prediction, over runs and over pairs."""
    by_pairs, by_runs = (
        candidates.iloc[int(candidates[column].argmin())] for column in ("mse_all_pairs", "mse_paired")
    )
    worse = by_pairs["mse_paired"] / by_runs["mse_paired"]
    (of_runs, of_pairs), (_, of_constant) = metrics["the fit"], metrics["a constant"]
    return Pitfall(
        key="pairs",
        name="metric over all pairs",
        changes="which fit is chosen",
        here=f"mse × {worse:.1f}; r² {of_pairs['r2']:.2f}, not {of_runs['r2']:.2f}",
        notice="shuffle the predictions: the metric must get worse",
        sentence=f"The fit has r² = {of_runs['r2']:.3f} over runs and {of_pairs['r2']:.2f} over pairs, where a "
        f"constant has {abs(of_constant['r2']):.2f}. Among {len(candidates) - 1} nearly optimal fits the metric over "
        f"pairs selects one with a = {by_pairs['size_exponent']:.3f}, whose mean square error over runs is "
        f"{worse:.1f} times the lowest",
        shifts={"metric over all pairs": by_pairs["size_exponent"] - a},
    )


def near_facts(near: pd.DataFrame, a: float) -> Facts:
    """What the metric over all pairs selects among the ends of a search."""
    chosen = near.iloc[int(near["mse_all_pairs"].argmin())]
    move = chosen["size_exponent"] - a
    moved = f"by {'−' if move < 0 else '+'}{power_of_ten(abs(move), 1)}" if move else "not at all"
    return {"c6_num_near": str(len(near) - 1), "c6_start_move": moved}


def pitfall_variance(slopes: OvertrainingSlopes | None) -> Pitfall:
    """What a variance called a standard error does to slopes; None: the table has none."""
    here, sentence = NOT_SHOWN, NOT_SEEN
    if slopes is not None:
        table = variance_as_error(slopes)
        ratios = table["eta_standard_error"] / table["eta_variance"]
        here = f"errors {ratios.min():.0f} to {ratios.max():.0f} times too small"
        sentence = (
            f"The variances are {ratios.min():.0f} to {ratios.max():.0f} times smaller than the standard errors. A "
            f"slope that is {table['errors_away'].max():.1f} standard errors from the common one seems to be "
            f"{table['variances_away'].max():.0f} “errors” away (test of equal slopes: p = {slopes.p_value:.2g})"
        )
    return Pitfall(
        key="variance",
        name="variance as error",
        changes="whether slopes differ",
        here=here,
        notice="leave out one run: a slope moves by about a standard error",
        sentence=sentence,
    )


def pitfall_product(iso: pd.DataFrame, forms: Mapping[str, Form]) -> Pitfall:
    """What a product of power laws says in place of their sum."""
    rows = {str(row["form"]): row for row in compare_forms(iso, forms).to_dict("records")}
    product, total = rows["product"], rows["sum, gamma free"]
    small, large = (product[key] - total[key] for key in ("small_long", "large_short"))
    has = "no optimum" if np.isnan(product["optimum"]) else f"an optimum at {product['optimum']:.2g} of it"
    return Pitfall(
        key="product",
        name="product for a sum",
        changes="whether there is an N*",
        here=has,
        notice="plot residuals over N at one budget: a valley remains",
        sentence=f"The rms log residual is {_hundredths(product['rms'])} for the product and "
        f"{_hundredths(total['rms'])} for the sum with γ free. The product has {has}, and at the two corners of the "
        "table it differs from the sum by "
        f"{small:+.2f} and {large:+.2f} nats per token",
    )


def pitfall_embedding(definitions: pd.DataFrame | None, iso: pd.DataFrame) -> Pitfall:
    """What leaving out the embedding does, of `embedding_effect`; None: the table lacks the shapes."""
    here, sentence, shifts = NOT_SHOWN, NOT_SEEN, {}
    if definitions is not None:
        share = embedding_params(iso) / iso["num_params"]
        first, bare, kaplan = definitions.to_dict("records")
        shifts = {"embedding left out of N": bare["parametric_exponent"] - first["parametric_exponent"]}
        here = f"a = {bare['parametric_exponent']:.3f}, not {first['parametric_exponent']:.3f}"
        sentence = (
            f"The embeddings hold {percent(share.min())} to {percent(share.max())} of the parameters. Without them, "
            f"parabolas at the exact C give a = {bare['isoflop_exponent']:.3f}, not {first['isoflop_exponent']:.3f}; "
            f"at C = 6ND they give {kaplan['isoflop_exponent']:.3f}. The parametric fit gives "
            f"{bare['parametric_exponent']:.3f}, not {first['parametric_exponent']:.3f}"
        )
    return Pitfall(
        key="embedding",
        name="embedding left out",
        changes="α and a",
        here=here,
        notice="name the N; plot the embedding's share over N",
        sentence=sentence,
        shifts=shifts,
    )


def pitfall_delta(path: pd.DataFrame, fit: Fit, search: Multistart, a: float) -> Pitfall:
    """What δ and the starts do: `path` of the IsoFLOP runs, of `companion.chapters.ch06.mistakes.delta_path`."""
    far = path.iloc[int((path["size_exponent"] - a).abs().argmax())]
    span, floors = (f"{path[column].min():.3f} to {path[column].max():.3f}" for column in ("size_exponent", "E"))
    first, last, furthest = (
        delta_text(delta) for delta in (path["huber_delta"].iloc[0], path["huber_delta"].iloc[-1], far["huber_delta"])
    )
    reached = reached_by_start(fit, search)
    widest = reached.groupby("parameter")["reached"].agg(np.ptp).idxmax()
    shares = reached.loc[reached["parameter"] == widest, "reached"]
    start = SYMBOLS.get(str(widest), str(widest))
    return Pitfall(
        key="delta",
        name="δ and the starts",
        changes="all parameters",
        here=f"a = {span}",
        notice="fit with several δ; if E moves, look at the residuals",
        sentence=f"For δ from {first} to {last}, a ranges over {span} and E over {floors}. Depending on the start "
        f"value of {start}, {percent(shares.min())} to {percent(shares.max())} of the plain searches arrive",
        shifts={f"δ = {furthest}, not {delta_text(fit.huber_delta)}": far["size_exponent"] - a},
    )


def pitfall_resample(resampled: pd.DataFrame, num_runs: int) -> Pitfall:
    """What a default seed does, of `companion.chapters.ch06.objectives.one_resample`."""
    once, drawn = resampled.to_dict("records")
    moved = float(drawn["size_exponent"] - once["size_exponent"])
    known = np.isfinite(moved)
    effect = f"; a moves by {moved:+.4f}" if known else "; it determines no law"
    return Pitfall(
        key="resample",
        name="default seed",
        changes="every constant",
        here=f"a moves by {moved:+.3f}" if known else NOT_SHOWN,
        notice="another seed must not move a point estimate; count the different rows",
        sentence=f"The resample holds {drawn['distinct']} of the {num_runs} runs, one of them {drawn['most']} times"
        f"{effect}",
        shifts={"one resample, seed 0": moved} if known else {},
    )


def published_constants() -> Facts:
    """The constant of a published runtime model as it came from one resample, and from every row once."""
    times = load_paper_inference()
    resampled, once = (
        1e3 * fit_published(times, "xlstm", "160m", "ttft", every_row_once=every, num_resamples=0).parameters["eps_s"]
        for every in (False, True)
    )
    return {"c6_published_eps": f"{resampled:.3f} ms", "c6_eps_once": f"{once:.3f} ms"}


def ledger_facts(ledger: pd.DataFrame) -> Facts:
    """How many published numbers of the chapter's sections come out again, and how many of these are dependent.

    Parameters
    ----------
    ledger
        of `companion.ledger.to_frame`, the chapter's sections.
    """
    again = ledger[ledger["verdict"] == REPRODUCED]
    return {
        "c6_published": str(len(ledger)),
        "c6_reproduced": str(len(again)),
        "c6_dependent": number_word(int((~again["independent"]).sum()), "none"),
    }


def pitfall_squared(squares: pd.DataFrame, num_runs: int) -> Pitfall:
    """What squaring twice does, of `companion.chapters.ch06.objectives.squared_twice`."""
    right, twice, _, fourth = squares.to_dict("records")
    shifts = {
        "Huber loss squared": twice["size_exponent"] - right["size_exponent"],
        "fourth powers": fourth["size_exponent"] - right["size_exponent"],
    }
    return Pitfall(
        key="squared",
        name="squared twice",
        changes="all parameters; which runs decide",
        here=f"{fourth['half']} runs decide, not {right['half']}",
        notice="evaluate the objective by hand at the optimum",
        sentence=f"Half of the Huber loss comes from {right['half']} of {num_runs} runs, half of its square from "
        f"{twice['half']}, and half of the fourth powers from {fourth['half']}. The exponent a is "
        f"{right['size_exponent']:.3f}, {twice['size_exponent']:.3f} and {fourth['size_exponent']:.3f}",
        shifts=shifts,
    )
