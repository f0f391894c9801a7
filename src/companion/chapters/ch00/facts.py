"""Values in the sentences of chapter 0, by the name under which the notebook glues them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from companion.accounting.inference import BF16, cache_bytes, context_of_equal_cache
from companion.architectures import preset
from companion.chapters.front.claims import Claim
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.formatting import count, plural, power_of_ten, significant

Facts = dict[str, str]


def main_architecture(tables: Mapping[str, pd.DataFrame]) -> str:
    """The architecture whose laws are drawn: xLSTM where the table has it, else the first."""
    return "xlstm" if "xlstm" in tables else next(iter(tables))


#: Claims of the front page in its order, by what chapter 0 calls them.
_CLAIMS = ("loss", "rate", "size", "context", "serving", "constants")


def answer_facts(claims: Sequence[Claim]) -> Facts:
    """What the paper says to its questions, and the verdicts of the front page."""
    named = dict(zip(_CLAIMS, claims, strict=True))
    says = {f"c0_says_{name}": claim.says.rstrip(".") for name, claim in named.items()}
    return says | {f"c0_verdict_{name}": claim.verdict for name, claim in named.items()}


def cell_facts(difference: float) -> Facts:
    """How far the recurrence lies from the parallel form."""
    return {"c0_difference": power_of_ten(difference, 1)}


def memory_facts(model_size: str, context_length: int) -> Facts:
    """What one sequence keeps in both models of a size, and from which context on the xLSTM keeps less."""
    models = {name: preset(name, model_size) for name in ("transformer", "xlstm")}
    sizes = {name: float(cache_bytes(model, context_length)) for name, model in models.items()}
    state = models["xlstm"]
    return {
        "c0_size": model_size.upper(),
        "c0_context": f"{context_length:,}",
        "c0_cache": f"{significant(sizes['transformer'] / 2**30, 2)} GiB",
        "c0_state": f"{significant(sizes['xlstm'] / 2**30, 2)} GiB",
        "c0_equal_cache": f"{float(context_of_equal_cache(models['transformer'], state)):,.0f}",
        "c0_layers": str(state.n_layers),
        "c0_heads": str(state.n_heads),
        "c0_state_bytes": f"{BF16.bytes_per_state:g}",
        "c0_cache_bytes": f"{BF16.bytes_per_cache:g}",
        "c0_matrix": f"{state.d_qk} × {state.d_hv}",
    }


def run_facts(runs: pd.DataFrame) -> Facts:
    """How many runs the paper's table holds, what they cost, and their settings."""
    batch = runs["batch_size_seqs"] * runs["context_length"]
    multiplicity = runs["multiplicity_in_published_fits"]
    chosen = runs[runs["experiment"] == "tokenparam"]
    ratio = chosen["num_tokens"] / chosen["num_params"]
    number = runs["architecture"].value_counts()
    return {
        "c0_num_runs": str(len(runs)),
        "c0_num_xlstm": str(number["xlstm"]),
        "c0_num_transformer": str(number["transformer"]),
        "c0_paper_count": str(int(multiplicity.sum())),
        "c0_twice": str(int((multiplicity > 1).sum())),
        "c0_figure_losses": str(int((runs["source"] == "figure").sum())),
        "c0_imposed": str(int(runs["imposed_published_fit"].sum())),
        "c0_least_ratio": significant(float(ratio.min()), 2),
        "c0_most_ratio": f"{float(significant(float(ratio.max()), 2)):,.0f}",
        "c0_sum_flops": power_of_ten(float(runs["train_flops"].sum()), 2),
        "c0_batch": f"{count(batch.min(), 2)} to {count(batch.max(), 2)}",
        "c0_rates": f"{runs['learning_rate'].min():g} to {runs['learning_rate'].max():g}",
    }


def law_facts(architecture: str, valleys: IsoflopFit, surface: Fit, context_length: int | None) -> Facts:
    """The exponent of the best size by the optima, and the parameters of the surface; of runs at one context."""
    law = surface.law
    return {
        "c0_architecture": label_of(architecture),
        "c0_at_context": "" if context_length is None else f" at T = {context_length}",
        "c0_budgets": plural(len(valleys.optima), "budget"),
        "c0_last_budget": power_of_ten(max(profile.isoflop_budget for profile in valleys.optima)),
        "c0_exponent": f"{valleys.power_law.law.exponent:.2f}",
        "c0_surface": f"E = {law.E:.2f}, α = {law.alpha:.2f}, β = {law.beta:.2f}, γ = {law.gamma:.2f}",
        "c0_surface_runs": plural(surface.num_rows, "run"),
    }
