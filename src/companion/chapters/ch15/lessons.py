"""Chapter 15: the pitfall shown on data, and what its exercises compute."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from companion.chapters.applicability import need
from companion.chapters.ch15.study import EXPERIMENTS, OwnStudy, the
from companion.errors import InputError
from companion.fitting.pareto import compare_architectures
from companion.formatting import percent, plural, power_of_ten, significant
from companion.plotting import Html, show_table
from companion.study.claims import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, study_claims

# ---- pitfall: fronts of runs that no design made alike ---------------------------------------------


def front_rows(study: OwnStudy) -> pd.DataFrame:
    """Fronts of the pair over all runs and over those of each design.

    Returns
    -------
    DataFrame
        one row each: `runs`, `num_runs`, `low`, `high` (FLOP, compute that both fronts cover), `share` of it (in log C)
        on which the first architecture is lower, and `factor` (median compute of the second over that of the first at
        equal loss).
    """
    runs, found = study.at_context, []
    parts = {"all": runs}
    if "experiment" in runs:
        parts |= {EXPERIMENTS.get(str(name), str(name)): group for name, group in runs.groupby("experiment")}
    for name, part in parts.items():
        try:
            compared = compare_architectures(part, *study.pair)
        except InputError:  # one architecture, or fronts that share no range
            continue
        low, high = compared.cost_range
        number = int(part["architecture"].isin(study.pair).sum())
        row = {"runs": name, "num_runs": number, "low": low, "high": high}
        found.append(row | {"share": compared.share_lower, "factor": compared.cost_factor()})
    need(found, "the fronts of the two architectures share no range of compute")
    return pd.DataFrame(found)


def show_fronts(study: OwnStudy, fronts: pd.DataFrame) -> Html:
    """A row per set of runs."""
    shown = fronts.assign(
        compute=[f"{power_of_ten(r['low'])} to {power_of_ten(r['high'])}" for r in fronts.to_dict("records")]
    )
    first, second = (the(name) for name in study.pair)
    return show_table(
        shown[["runs", "num_runs", "compute", "share", "factor"]],
        name="study-fronts",
        caption=f"Fronts of {first} and {second} over different parts of one study: the share of their common range on "
        f"which {first} is lower, and the compute of {second} over that of {first} at equal loss (median).",
        formats={"share": _share, "factor": "{:.2f}"},
        labels={"num_runs": "number", "compute": "C (FLOP)", "share": "share lower", "factor": "compute ratio"},
    )


def _share(share: float) -> str:
    """A share of a range of compute, in whole percent: where two fronts cross is not known better."""
    return percent(round(share, 2))


def front_facts(study: OwnStudy, fronts: pd.DataFrame) -> dict[str, object]:
    """Values of the pitfall."""
    by = fronts.set_index("runs")
    return {
        "c15_front_all": _share(float(by["share"].get("all", np.nan))),
        "c15_front_parts": front_verdict(study, by["share"]),
    }


def front_verdict(study: OwnStudy, share: pd.Series) -> str:
    """A verdict: whether the parts of a study agree about who is lower."""
    first = the(study.pair[0])
    texts = [f"{_share(float(value))} with the {name} runs" for name, value in share.items() if name != "all"]
    if not texts:
        return "The study has no parts to compare"
    spread = float(share.max() - share.min())
    end = "so the answer depends on which runs are taken" if spread > 0.1 else "so the parts agree"
    return f"{first[0].upper()}{first[1:]} is lower on {' and on '.join(texts)} alone, {end}"


# ---- exercises -----------------------------------------------------------------------------------


def seeds_needed(deviation: float, differences: Sequence[float], level: float = 0.95) -> pd.DataFrame:
    """Seeds of each architecture from which a difference of losses exceeds its interval.

    Parameters
    ----------
    deviation
        standard deviation between seeds, nats per token.
    differences
        of the losses of two architectures, nats per token.
    level
        of Student's interval for the difference of two means of n seeds each.

    Returns
    -------
    DataFrame
        `difference` and `seeds`.
    """
    rows = []
    for difference in differences:
        seeds = np.arange(2, 10_001)
        half = stats.t.ppf((1 + level) / 2, 2 * seeds - 2) * deviation * np.sqrt(2 / seeds)
        enough = seeds[half < difference]
        rows.append({"difference": difference, "seeds": f"{enough[0]:,}" if enough.size else "more than 10,000"})
    return pd.DataFrame(rows)


def show_seeds_needed(table: pd.DataFrame, deviation: float) -> Html:
    """The table of an exercise."""
    return show_table(
        table,
        name="study-seeds-needed",
        caption=f"Seeds of each architecture from which a difference of mean losses exceeds half its 95 % interval, if "
        f"seeds scatter by {deviation:.4f} nats/token.",
        formats={"difference": "{:g}"},
        labels={"difference": "difference (nats/token)", "seeds": "seeds of each"},
    )


def thinned(runs: pd.DataFrame, sizes: int, rng: np.random.Generator) -> pd.DataFrame:
    """IsoFLOP profiles with at most so many of their sizes, drawn without replacement; other runs as they are."""
    iso = runs["isoflop_budget"].notna()
    kept = [runs[~iso]]
    for _, profile in runs[iso].groupby(["architecture", "context_length", "isoflop_budget"]):
        there = profile["num_params"].unique()
        chosen = rng.choice(there, min(sizes, there.size), replace=False)
        kept.append(profile[profile["num_params"].isin(chosen)].drop_duplicates("num_params"))
    return pd.concat(kept)


def verdicts_by_sizes(runs: pd.DataFrame, sizes: Sequence[int], num_draws: int, seed: int = 0) -> pd.DataFrame:
    """How often the claims on profiles get each verdict when profiles have few sizes.

    Returns
    -------
    DataFrame
        one row per claim and number of sizes: `claim`, `sizes` and the share of each verdict.
    """
    rng, rows = np.random.default_rng(seed), []
    for number in sizes:
        judged = [study_claims(thinned(runs, number, rng), num_resamples=200)[:4] for _ in range(num_draws)]
        for claims in zip(*judged, strict=True):
            verdicts = [each.verdict for each in claims]
            row = {"claim": claims[0].claim, "sizes": number}
            rows.append(row | {v: verdicts.count(v) / num_draws for v in (HOLDS, CANNOT_TELL, DOES_NOT_HOLD)})
    return pd.DataFrame(rows)


def show_verdicts(table: pd.DataFrame) -> Html:
    """The table of an exercise."""
    return show_table(
        table.sort_values(["claim", "sizes"]),
        name="study-thinned",
        caption="The paper's runs with few sizes in each profile, drawn at random: how often each verdict comes out.",
        formats=dict.fromkeys((HOLDS, CANNOT_TELL, DOES_NOT_HOLD), percent),
        labels={"sizes": "sizes of a profile"},
    )


def token_facts(tokens: dict[str, float], num_params: dict[str, float], budget: float) -> dict[str, object]:
    """Values of an exercise: tokens per parameter that a budget buys each architecture."""
    texts = [f"{significant(tokens[name] / num_params[name], 2)} for {the(name)}" for name in tokens]
    return {
        "c15_ex_ratio": " and ".join(texts),
        "c15_ex_budget": power_of_ten(budget),
        "c15_ex_models": plural(len(tokens), "model"),
    }
