"""Tables of the IsoFLOP chapter."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import need, need_laws
from companion.chapters.names import SYMBOLS, label
from companion.chapters.settings import show_settings
from companion.fitting.bootstrap import standard_spread
from companion.fitting.isoflop.compare import exponents_by_convention
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.fitting.isoflop.select import settings_by_budget
from companion.formatting import count, interval, percent, power_of_ten, significant
from companion.ledger import LedgerRow, summarize, to_frame
from companion.plotting import Html, show_table
from companion.runs.recount import missing_for_recount

Key = tuple[str, str]


def architectures_of(results: Mapping[Key, object]) -> list[str]:
    """The architectures of results by architecture and x, in their order."""
    return list(dict.fromkeys(name for name, _ in results))


def need_main_laws(main: Mapping[Key, IsoflopFit]) -> None:
    """Leave out what follows in a section unless the optima of every architecture and x define a power law.

    Raises
    ------
    NotApplicable
        with the first law that is undefined, and why.
    """
    need_laws({f"{label(name)} over {x}": fit for (name, x), fit in main.items()})


def settings_by_architecture(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`settings_by_budget` of every architecture, with its name in the first column (as printed)."""
    parts = [settings_by_budget(table).assign(architecture=label(name)) for name, table in tables.items()]
    return pd.concat(parts, ignore_index=True).set_index("architecture").reset_index()


def show_runs(settings: pd.DataFrame) -> Html:
    """The table of `settings_by_architecture`."""
    caption = "IsoFLOP runs by budget. Within a budget C is nearly, not exactly, the same for all sizes."
    return show_settings(settings, settings.columns.tolist(), caption, batch="batch (tokens)", batch_digits=2)


def show_optima(every: Mapping[Key, IsoflopFit]) -> Html:
    """N\\*, its standard error in two ways, D\\* and the loss at every budget that has an optimum over N."""
    rows = []
    for name in architectures_of(every):
        sizes, tokens = every[name, "num_params"], every[name, "num_tokens"]
        best_tokens = {profile.isoflop_budget: profile.x_opt for profile in tokens.optima}
        for i, profile in enumerate(sizes.optima):
            delta = profile.fit.log10_x_opt_standard_error if profile.fit else np.nan
            spread = standard_spread(np.log10(sizes.x_opt_resamples[:, i]))
            row = {"architecture": label(name), "isoflop_budget": profile.isoflop_budget, "num_params": profile.x_opt}
            row |= {"delta": 10**delta - 1, "bootstrap": 10**spread - 1}
            row |= {"num_tokens": best_tokens.get(profile.isoflop_budget), "loss": profile.loss_opt}
            rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        caption="Optimum of every budget; standard error of N* by the delta method and by drawn parabolas.",
        formats={"isoflop_budget": power_of_ten, "num_params": count, "delta": percent, "bootstrap": percent}
        | {"num_tokens": count, "loss": "{:.4f}"},
        labels={"isoflop_budget": "budget (FLOP)", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"delta": "± delta", "bootstrap": "± bootstrap", "loss": "loss at N* (nats/token)"},
    )


def show_published_laws(published: Mapping[Key, IsoflopFit]) -> Html:
    """Power laws of the published procedure, with two kinds of interval of the exponent."""
    rows = [
        {
            "architecture": label(name),
            "law": SYMBOLS[x],
            "prefactor": fit.power_law.law.prefactor,
            "exponent": fit.power_law.law.exponent,
            "error": fit.power_law.exponent_standard_error,
            "optima": len(fit.optima),
            "interval": interval(fit.power_law.interval("exponent")),
            "bootstrap": interval(fit.interval("exponent")),
        }
        for (name, x), fit in published.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        caption="The published procedure: its standard error, and 95 % intervals by Student's t and by bootstrap.",
        formats={"prefactor": lambda v: significant(v, 4), "exponent": "{:.4f}", "error": "{:.4f}"},
        labels={"error": "standard error", "interval": "Student interval", "bootstrap": "bootstrap interval"},
    )


def show_ledger_sections(rows: list[LedgerRow]) -> Html:
    """Counts of verdicts by section of the ledger."""
    return show_table(summarize(rows), caption="Published numbers by section, and how many of them come out again.")


def show_ledger_rows(rows: list[LedgerRow]) -> Html:
    """Some rows of the ledger: exponents of N\\* at T = 8192, one optimum, one compute-optimal model."""
    ledger = to_frame(rows)
    entry, quantity = ledger["entry"], ledger["quantity"]
    laws = entry.str.contains("T=8192 N") & entry.str.contains("1e20") & quantity.str.startswith("exponent")
    best = entry.eq("xlstm T=8192 isoflop_budget=1e+20 num_params") & quantity.isin(["x_opt", "loss_opt"])
    columns = ["entry", "quantity", "published", "ours", "independent", "verdict"]
    chosen = ledger.loc[laws | best | entry.eq("num_params=1e+09"), columns].copy()
    chosen["entry"] = entry.str.replace(r" = \S+ \* C\*\*\w| \(budgets.*", "", regex=True)
    chosen["independent"] = chosen["independent"].map({True: "yes", False: "no"})
    return show_table(
        chosen,
        caption="Some of them: the exponents of N*, one optimum, one row of the published table of compute-optimal "
        "models.",
        formats={"published": "{:.7g}", "ours": "{:.7g}"},
    )


def show_errors(errors: pd.DataFrame) -> Html:
    """The table of `errors_by_context`."""
    three, halves = ["published", "bootstrap", "joint"], ["half_published", "half_joint"]
    return show_table(
        errors[["T", "architecture", "optima", *three, *halves, "nearer"]],
        caption="Exponent of N*: standard errors, half widths of 95 % intervals, chance of optima this near to a line.",
        formats=dict.fromkeys(three, "{:.4f}") | dict.fromkeys(halves, "{:.3f}") | {"nearer": percent},
        labels={"published": "published procedure", "half_published": "half interval, published procedure"}
        | {"half_joint": "half interval, joint", "nearer": "chance of lying this near"},
    )


def show_differences(differences: Mapping[str, pd.DataFrame], first: str, second: str) -> Html:
    """Exponents of two architectures and their difference, choice by choice.

    Parameters
    ----------
    differences
        by x: tables of `exponent_differences`.
    first, second
        names of the architectures.
    """
    columns = ["first", "second", "difference", "low", "high"]
    every = pd.concat([table.assign(law=SYMBOLS[x]) for x, table in differences.items()])
    return show_table(
        every[["law", "choice", *columns, "p_value"]],
        caption=f"Exponent of {label(first)} less that of {label(second)}, 95 % interval, and p of no difference.",
        formats=dict.fromkeys(columns, "{:.3f}") | {"p_value": "{:.2g}"},
        labels={"first": label(first), "second": label(second), "low": "from", "high": "to", "p_value": "p"},
    )


def show_ratios(ratios: Mapping[str, pd.DataFrame], first: str, second: str) -> Html:
    """Optima of two architectures and their ratio, by x tables of `optimum_ratio`."""
    every = pd.concat([table.assign(law=SYMBOLS[x]) for x, table in ratios.items()])
    return show_table(
        every[["law", "isoflop_budget", "first", "second", "ratio", "low", "high"]],
        caption=f"Optimum of {label(first)} over that of {label(second)} at equal compute, 95 % bootstrap intervals.",
        formats={"isoflop_budget": power_of_ten, "first": count, "second": count}
        | dict.fromkeys(("ratio", "low", "high"), "{:.2f}"),
        labels={"isoflop_budget": "budget (FLOP)", "first": label(first), "second": label(second)}
        | {"low": "from", "high": "to"},
    )


def exponents_by_architecture_and_convention(
    tables: Mapping[str, pd.DataFrame], budgets: Mapping[str, Sequence[float]], conventions: Sequence[str]
) -> pd.DataFrame:
    """`exponents_by_convention` of every architecture; empty if a table cannot be counted again.

    Returns
    -------
    DataFrame
        with the column `model`, the architecture as printed. An empty one says why in `attrs["missing"]`.
    """
    missing = next(filter(None, map(missing_for_recount, tables.values())), "")
    parts = [] if missing else [
        exponents_by_convention(table, conventions, budgets[name]).assign(model=label(name))
        for name, table in tables.items()
    ]  # fmt: skip
    result = pd.concat(parts) if parts else pd.DataFrame()
    result.attrs["missing"] = missing
    return result


def show_conventions(exponents: pd.DataFrame) -> Html:
    """The table of `exponents_by_architecture_and_convention`, or a sentence that says what it needs."""
    if exponents.attrs["missing"]:
        return Html(f"<p>This table cannot be counted again: {exponents.attrs['missing']}.</p>")
    columns = ["model", "convention", "flops_ratio", "spread", "a", "a_joint", "a_low", "a_high", "b", "b_joint"]
    return show_table(
        exponents[columns],
        caption="Exponents by convention. Ratio: recounted over given C. Spread: largest over smallest C within a "
        "budget.",
        formats={c: "{:.2f}" if c in ("flops_ratio", "spread") else "{:.3f}" for c in columns[2:]},
        labels={"model": "architecture", "flops_ratio": "ratio", "a": "a, two steps", "a_joint": "a, joint"}
        | {"a_low": "from", "a_high": "to", "b": "b, two steps", "b_joint": "b, joint"},
    )


def show_sizes_by_context(laws: Mapping[tuple[str, int | None], JointIsoflopFit], train_flops: float) -> Html:
    """N\\* at one compute by architecture and context length, and its change from the shortest context.

    Parameters
    ----------
    laws
        joint fits over `num_params` by architecture and context length (None: the table names no context).
    train_flops
        the compute, FLOP.

    Raises
    ------
    NotApplicable
        without a law.
    """
    rows = []
    for (name, length), fit in laws.items():
        low, high = fit.predict_interval(train_flops)
        row = {"architecture": label(name), "T": length or "–", "N*": fit.law.predict(train_flops)}
        rows.append(row | {"low": low, "high": high})
    need(rows, "no context length has the same budgets for all architectures")
    table = pd.DataFrame(rows).sort_values("architecture", kind="stable")
    table["change"] = table["N*"] / table.groupby("architecture")["N*"].transform("first") - 1
    return show_table(
        table,
        caption=f"Optimal size at {power_of_ten(train_flops)} FLOP, 95 % interval, and change from the shortest "
        "context.",
        formats=dict.fromkeys(("N*", "low", "high"), count) | {"change": "{:+.0%}"},
        labels={"low": "from", "high": "to"},
    )


def show_without_one_budget(
    rows: Sequence[tuple[str, float, float, IsoflopFit | None, JointIsoflopFit | None]],
) -> Html:
    """Exponents of N\\* without one budget: architecture, budget, its lever, two-step fit, joint fit (None: "
    "refused)."""
    table = [
        {
            "architecture": label(name),
            "without": budget,
            "lever": lever,
            "two steps": two_steps.power_law.law.exponent if two_steps else np.nan,
            "joint": joint.law.exponent if joint else np.nan,
        }
        for name, budget, lever, two_steps, joint in rows
    ]
    return show_table(
        pd.DataFrame(table, columns=["architecture", "without", "lever", "two steps", "joint"]),
        caption="Exponent of N* without one budget, and by how much the two-step slope changes per decade of that "
        "optimum.",
        formats={"without": power_of_ten, "lever": "{:+.2f}", "two steps": "{:.3f}", "joint": "{:.3f}"},
    )


def show_windows(rows: Sequence[tuple[str, float, int, JointIsoflopFit]]) -> Html:
    """Exponents of N\\* by window: architecture, decades around the optimum, runs within them, joint fit.

    Raises
    ------
    NotApplicable
        without a row.
    """
    need(rows, "no window leaves enough runs for a joint fit")
    table = [
        {"architecture": label(name), "window": decades, "runs": num_runs}
        | {"exponent": fit.law.exponent, "error": fit.exponent_standard_error}
        for name, decades, num_runs, fit in rows
    ]
    return show_table(
        pd.DataFrame(table),
        caption="Exponent of N* from sizes within a window around the optimum.",
        formats={"exponent": "{:.3f}", "error": "{:.3f}"},
        labels={"window": "± decades", "error": "standard error"},
    )
