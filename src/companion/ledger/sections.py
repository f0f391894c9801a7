"""Our values for the published ones, section by section (see `companion.ledger.entries`).

Every function takes the paper's tables and returns, for each entry of its section, the values it can compute and the
spread of each value under what is not known about the data (`spread`: 0 where the data are exact).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import PAPER, TFLA, Convention, num_params
from companion.architectures import make_architecture
from companion.errors import InputError
from companion.fitting.isoflop.profiles import fit_profile, isoflop_groups
from companion.fitting.overtraining.exponents import tokens_per_param_preset
from companion.fitting.power_law import PowerLawFit, fit_power_law
from companion.inference.published import USUAL_OBJECTIVE, published_draws
from companion.ledger.parametric import fit_as_published, values_and_spreads
from companion.runs.load import SHAPE_COLUMNS
from companion.runs.recount import recount
from companion.runs.select import subset

#: Draws of the data within their rounding, for the spread of every value computed from losses.
NUM_DRAWS = 64
MULTIPLICITY = "multiplicity_in_published_fits"
SHAPES = SHAPE_COLUMNS
#: Attention as Hoffmann et al. count it, all else as the paper: what the authors call "chinchilla" in the slopes.
CHINCHILLA_ATTENTION = replace(
    PAPER, name="chinchilla attention", attention_causal_factor=1.0, attention_softmax_flops=3.0
)


@dataclass(frozen=True)
class Value:
    """A value of ours; `spread` is its standard deviation over draws of the data within their rounding."""

    ours: float
    spread: float = 0.0
    #: False where the data behind it were reconstructed from the published value itself.
    independent: bool = True
    note: str = ""


class PaperData:
    """The paper's tables, and what several sections compute from them."""

    def __init__(self, runs: pd.DataFrame, inference: pd.DataFrame, published: dict[str, Any]) -> None:
        self.runs, self.inference = runs, inference
        self._published_profiles = {
            (entry["architecture"], int(entry["context_length"]), float(entry["isoflop_budget"]), entry["x"])
            for entry in published.get("isoflop_optima", [])
        }
        self._optima: dict[tuple[str, int, float, str], list[dict[str, float]]] = {}

    @cached_property
    def exact_flops(self) -> pd.Series:
        """train_flops of every run from its shapes: the table's column keeps six digits."""
        return self.flops_under({"transformer": PAPER, "xlstm": PAPER})

    def flops_under(self, conventions: dict[str, Convention]) -> pd.Series:
        """train_flops of every run under a convention per architecture."""
        return recount(self.runs, conventions)

    def loss_draws(self, rows: pd.DataFrame, seed: int = 0, imposed: bool = False) -> Iterable[np.ndarray]:
        """The losses as stored, then draws within what is known of their precision.

        Where the published parabola was imposed on losses read off a figure, it comes out of them again whatever each
        single loss is wrong by; then only the rounding is left.
        """
        loss = rows["val_loss"].to_numpy(dtype=float)
        half_width = rows["loss_uncertainty"].to_numpy(dtype=float)
        if imposed:
            half_width = np.where(half_width > 1e-4, 5e-6, half_width)
        rng = np.random.default_rng(seed)
        yield loss
        for _ in range(NUM_DRAWS):
            yield loss + rng.uniform(-half_width, half_width)

    def isoflop_runs(self, architecture: str, context_length: int) -> pd.DataFrame:
        """IsoFLOP runs of one architecture and context, with FLOPs from the shapes."""
        rows = subset(self.runs, architecture=architecture, context_length=context_length, experiment="isoflop")
        return rows.assign(train_flops=self.exact_flops[rows.index])

    def optimum_draws(self, architecture: str, context_length: int, budget: float, x: str) -> list[dict[str, float]]:
        """What the published procedure finds for one profile: on the losses as stored, then on every draw."""
        key = (architecture, context_length, budget, x)
        if key not in self._optima:
            runs = self.isoflop_runs(architecture, context_length)
            [(found, rows)] = isoflop_groups(runs, x, MULTIPLICITY, [budget]).items()
            self._optima[key] = [
                _optimum(found, rows[x], loss, rows["train_flops"], rows[MULTIPLICITY])
                for loss in self.loss_draws(rows, len(self._optima), self.imposed(*key))
            ]
        return self._optima[key]

    def imposed(self, architecture: str, context_length: int, budget: float, x: str) -> bool:
        """Whether losses of this profile were reconstructed with its own published parabola imposed."""
        rows = self.isoflop_runs(architecture, context_length)
        reconstructed = rows.loc[np.isclose(rows["isoflop_budget"], budget), "imposed_published_fit"].any()
        return bool(reconstructed) and (architecture, context_length, budget, x) in self._published_profiles

    def power_law_draws(
        self, architecture: str, context_length: int, x: str, budgets: list[float]
    ) -> list[PowerLawFit]:
        """The published power law through optima: on the losses as stored, then on every draw."""
        optima = [self.optimum_draws(architecture, context_length, budget, x) for budget in budgets]
        return [
            fit_power_law([p["mean_train_flops"] for p in points], [p["x_opt"] for p in points])
            for points in zip(*optima, strict=True)
        ]


def _optimum(budget: float, x: Any, loss: Any, flops: Any, weights: Any) -> dict[str, float]:
    profile = fit_profile(budget, x, loss, flops, weights)
    if profile.fit is None:
        raise InputError(f"ledger: no parabola at budget {budget:g}")
    law, errors = profile.fit.law, profile.fit.standard_errors
    return {
        "mean_train_flops": profile.mean_train_flops,
        "x_opt": law.x_opt,
        "loss_opt": law.loss_opt,
        **dict(zip(("parabola_a", "parabola_b", "parabola_c"), (law.quadratic, law.linear, law.constant), strict=True)),
        **dict(zip(("parabola_a_std", "parabola_b_std", "parabola_c_std"), errors, strict=True)),
    }


def _from_draws(draws: list[float], independent: bool = True) -> Value:
    # the spread is around the stored losses' value, so that a bias of the draws counts too
    spread = float(np.sqrt(np.mean((np.array(draws[1:]) - draws[0]) ** 2)))
    return Value(draws[0], spread, independent)


# ---- sections -----------------------------------------------------------------------------------


def isoflop_optima(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Parabola, optimum and mean FLOPs of one profile, repeated runs counted twice as published."""
    where = (entry["architecture"], int(entry["context_length"]), float(entry["isoflop_budget"]))
    draws = data.optimum_draws(*where, entry["x"])
    independent = not data.imposed(*where, entry["x"])
    values = {name: _from_draws([draw[name] for draw in draws], independent) for name in draws[0]}
    # exact from shapes, whatever the losses are
    return {**values, "mean_train_flops": Value(draws[0]["mean_train_flops"])}


def isoflop_power_laws(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Exponent, prefactor and their standard errors for the published choice of budgets."""
    x = "num_params" if entry["quantity"].startswith("N") else "num_tokens"
    budgets = [float(budget) for budget in entry["budgets_used"].split(" ")[0].split(",")]
    where = (entry["architecture"], int(entry["context_length"]))
    fits = data.power_law_draws(*where, x, budgets)
    independent = not any(data.imposed(*where, budget, x) for budget in budgets)
    return {
        "exponent": _from_draws([fit.law.exponent for fit in fits], independent),
        "prefactor": _from_draws([fit.law.prefactor for fit in fits], independent),
        "exponent_std": _from_draws([fit.exponent_standard_error for fit in fits], independent),
        "prefactor_std": _from_draws([fit.prefactor_standard_error for fit in fits], independent),
        "num_points": Value(len(budgets)),
    }


def compute_optimal_table_8192(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Compute and tokens at which a size is optimal: the N* law inverted, then the D* law (four budgets each)."""
    values: dict[str, Value] = {}
    for architecture in ("transformer", "xlstm"):
        budgets = [6e18, 1e19, 3e19, 1e20]
        size_laws = data.power_law_draws(architecture, 8192, "num_params", budgets)
        token_laws = data.power_law_draws(architecture, 8192, "num_tokens", budgets)
        flops = [float(fit.law.invert(float(entry["num_params"]))) for fit in size_laws]
        tokens = [float(fit.law.predict(c)) for fit, c in zip(token_laws, flops, strict=True)]
        # the token law takes part in D alone, but both laws rest on the same reconstructed losses
        independent = not any(data.imposed(architecture, 8192, budget, "num_params") for budget in budgets)
        values[f"{architecture}_train_flops"] = _from_draws(flops, independent)
        values[f"{architecture}_num_tokens"] = _from_draws(tokens, independent)
    return values


def overtraining_slopes(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Slope and intercept of log loss over log compute at one ratio of tokens to parameters."""
    if entry.get("table_of_the_paper"):
        conventions = {"eta_transformer": ("transformer", PAPER), "eta_xlstm": ("xlstm", TFLA)}
        return {name: _slope(data, entry, *key)["eta"] for name, key in conventions.items()}
    by_mode = {'"first"': PAPER, '"distill_scaling"': PAPER, '"tfla"': TFLA, '"chinchilla"': CHINCHILLA_ATTENTION}
    [convention] = [convention for word, convention in by_mode.items() if word in entry["flop_mode"]]
    return _slope(data, entry, entry["architecture"], convention)


def _slope(data: PaperData, entry: dict[str, Any], architecture: str, convention: Convention) -> dict[str, Value]:
    flops = data.flops_under({"transformer": convention, "xlstm": convention})
    chosen = (data.runs["architecture"] == architecture).to_numpy()
    chosen = chosen & (tokens_per_param_preset(data.runs) == float(entry["token_param_ratio"]))
    chosen = chosen & (data.runs["left_out_of_published_slopes"] == 0).to_numpy()
    rows = data.runs[chosen]
    fits = [fit_power_law(flops[chosen], loss) for loss in data.loss_draws(rows)]
    return {
        "eta": _from_draws([-fit.law.exponent for fit in fits]),
        "log_lambda": _from_draws([float(np.log(fit.law.prefactor)) for fit in fits]),
        "lambda_": _from_draws([fit.law.prefactor for fit in fits]),
    }


def parametric_fits(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Parameters and objective of the law on the data set of one entry, from the global optimum."""
    note = ""
    if "objective" not in entry:
        note = (
            "published: the fit of least all-pairs mse among the 100 lowest objectives; ours: the lowest objective; "
            "their parameters differ from about the third or fourth digit"
        )
    values = values_and_spreads(*fit_as_published(data.runs, entry))
    return {name: Value(ours, spread, note=note) for name, (ours, spread) in values.items()}


def inference_fits(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """The runtime model of one size by the published procedure, on one resample of its timings."""
    quantity, objective = entry["quantity"], entry["objective"]
    note = "one resample of the timings (default_rng(0)); squares of Huber losses are summed"
    if objective == "plain logarithms":
        note = "one resample of the timings (default_rng(0)); least squares of logarithms, in a cell of its own"
    elif quantity == "ttft" and objective != USUAL_OBJECTIVE[quantity]:
        note += "; of logarithms, in a cell of its own"
    draws = published_draws(
        data.inference, entry["architecture"], entry["model_size"], quantity, objective, num_draws=NUM_DRAWS
    )
    if quantity == "ttft":
        draws["alpha_over_peak"] = draws["alpha_eff_flops_per_s"] / entry.get("peak_assumed_flops_per_s", np.nan)
    values = {name: replace(_from_draws(found.tolist()), note=note) for name, found in draws.items()}
    return {name: value for name, value in values.items() if np.isfinite(value.ours)}


def inference_model_sizes(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Parameters of a timed model from the shapes printed beside it."""
    shapes = {name: int(entry[name]) for name in ("d_model", "n_layers", "n_heads", "d_ff")}
    ours = int(num_params(make_architecture(entry["architecture"], **shapes)))
    note = ""
    if excess := ours - int(entry["num_params"]):
        d_ff, remainder = divmod(excess, 3 * shapes["d_model"] * shapes["n_layers"])
        if not remainder:
            printed = shapes["d_ff"]
            note = f"the printed N belongs to d_ff {printed - d_ff}, not to the d_ff {printed} printed beside it"
    return {"num_params": Value(ours, note=note)}


def inference_measurement_counts(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Rows and valid measurements of data/inference.csv, by architecture."""
    values: dict[str, Value] = {}
    for architecture in ("transformer", "xlstm"):
        rows = data.inference[data.inference["architecture"] == architecture]
        values[f"{architecture}.rows"] = Value(len(rows))
        values[f"{architecture}.ttft_valid"] = Value(int(rows["ttft_s"].notna().sum()))
        values[f"{architecture}.step_time_valid"] = Value(int(rows["step_time_s"].notna().sum()))
    return values


def run_table_statistics(data: PaperData, entry: dict[str, Any]) -> dict[str, Value]:
    """Counts, quantiles and the sum of FLOPs of the run table."""
    runs = data.runs.assign(train_flops=data.exact_flops)
    values = {"num_runs": Value(len(runs)), "paper_count": Value(int(runs[MULTIPLICITY].sum()))}
    for architecture, number in runs["architecture"].value_counts().items():
        values[str(architecture)] = Value(int(number))
    sets = runs["experiment"] + "_ctx" + runs["context_length"].astype(str) + "." + runs["architecture"]
    for name, number in sets.value_counts().items():
        values[f"by_set.{name}"] = Value(int(number))
    values["sum_train_flops"] = Value(float(runs["train_flops"].sum()))
    quantiles = {"min": 0.0, "25": 0.25, "50": 0.5, "75": 0.75, "max": 1.0}
    for column in ("train_flops", "num_tokens", "num_params"):
        for name, share in quantiles.items():
            values[f"{column}_quantiles.{name}"] = Value(float(runs[column].quantile(share)))
    return values


#: Sections computed so far. A section of the published file that is not here is listed as not attempted.
SECTIONS: dict[str, Callable[[PaperData, dict[str, Any]], dict[str, Value]]] = {
    function.__name__: function
    for function in (
        isoflop_optima,
        isoflop_power_laws,
        parametric_fits,
        compute_optimal_table_8192,
        overtraining_slopes,
        inference_fits,
        inference_model_sizes,
        inference_measurement_counts,
        run_table_statistics,
    )
}
