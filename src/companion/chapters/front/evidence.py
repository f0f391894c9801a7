"""The claims of the front page from the paper's own runs and the authors' timings."""

import pandas as pd

from companion.chapters.applicability import PAPER_PAIR, main_budgets
from companion.chapters.ch08.draws import draw_effects, drawn_and_once
from companion.chapters.front.claims import (
    Claim,
    constants_claim,
    context_claim,
    dominance_claim,
    overtraining_claim,
    serving_claim,
    size_claim,
)
from companion.fitting.context import fit_context_optima
from companion.fitting.isoflop import IsoflopFit, fit_isoflop, isoflop_runs
from companion.fitting.isoflop.compare import optimum_ratio
from companion.fitting.isoflop.goodness_of_fit import skew
from companion.fitting.overtraining import fit_overtraining_slopes
from companion.fitting.overtraining.slope_tests import parallel_tests
from companion.fitting.pareto import compare_architectures
from companion.formatting import share_in_words
from companion.inference import load_paper_inference
from companion.runs.context_length import PAPER_CONTEXT
from companion.runs.load import load_paper_runs
from companion.runs.select import subset


def paper_claims() -> list[Claim]:
    """Six claims of the paper, each by the procedure of its chapter."""
    runs, timings = load_paper_runs(), load_paper_inference()
    xlstm, transformer = PAPER_PAIR
    at_context = subset(runs, context_length=PAPER_CONTEXT)
    profiles = {name: isoflop_runs(runs, name, PAPER_CONTEXT) for name in PAPER_PAIR}
    isoflop = {name: fit_isoflop(iso, budgets=main_budgets(iso, None, True)) for name, iso in profiles.items()}
    slopes = {name: fit_overtraining_slopes(subset(at_context, name)) for name in PAPER_PAIR}
    return [
        dominance_claim(compare_architectures(at_context, xlstm, transformer)),
        overtraining_claim({name: parallel_tests(fits) for name, fits in slopes.items()}),
        size_claim(
            optimum_ratio(isoflop[xlstm], isoflop[transformer]), cubic_ratio(isoflop[xlstm], isoflop[transformer])
        ),
        context_claim({name: fit_context_optima(runs, name) for name in PAPER_PAIR}),
        serving_claim(timings, int(timings["prefill_length"].max())),
        constants_claim(draw_effects(drawn_and_once(timings, num_resamples=0))),
    ]


def cubic_ratio(first: IsoflopFit, second: IsoflopFit) -> pd.Series:
    """Optimum of the first over that of the second fit where cubics take the place of parabolas, by budget (FLOP).

    NaN where a cubic has no minimum among the sizes.
    """
    one, other = (
        pd.Series({profile.isoflop_budget: skew(profile).x_opt for profile in fit.optima}) for fit in (first, second)
    )
    both = one.index.intersection(other.index)
    return one[both] / other[both]


def loss_facts(runs: pd.DataFrame) -> dict[str, str]:
    """How the losses of the paper's runs were obtained, and what rests on those rebuilt from its parabolas."""
    rebuilt, read = runs["imposed_published_fit"] == 1, runs["source"] == "figure"
    xlstm = runs[(runs["architecture"] == PAPER_PAIR[0]) & (runs["experiment"] == "isoflop")]
    contexts = xlstm.groupby("context_length")["imposed_published_fit"].any()
    profiles = isoflop_runs(runs, PAPER_PAIR[0], PAPER_CONTEXT)
    budgets = profiles[profiles["isoflop_budget"].isin(main_budgets(profiles, None, True))]
    by_budget = budgets.groupby("isoflop_budget")["imposed_published_fit"].any()
    return {
        "front_losses": str(len(runs)),
        "front_logged": str(int((~read).sum())),
        "front_read": str(int((read & ~rebuilt).sum())),
        "front_rebuilt": str(int(rebuilt.sum())),
        "front_rebuilt_budgets": share_in_words(int(by_budget.sum()), len(by_budget)),
        "front_rebuilt_contexts": share_in_words(int(contexts.sum()), len(contexts)),
    }
