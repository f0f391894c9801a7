"""Tables of the IsoFLOP chapter."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import need, need_laws
from companion.chapters.ch03.words import full_number, p_value
from companion.chapters.labels import SYMBOLS, label_of, the
from companion.fitting.bootstrap import standard_spread
from companion.fitting.isoflop.compare import exponents_by_convention
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.fitting.isoflop.select import settings_by_budget
from companion.formatting import count, interval, percent, power_of_ten, signed_percent, significant
from companion.ledger import LedgerRow, summarize, to_frame
from companion.plotting import Html
from companion.plotting.embed import show_table
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
    need_laws({f"{label_of(name)} over {x}": fit for (name, x), fit in main.items()})


def settings_by_architecture(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`settings_by_budget` of every architecture, with its name in the first column (as printed)."""
    parts = [settings_by_budget(table).assign(architecture=label_of(name)) for name, table in tables.items()]
    return pd.concat(parts, ignore_index=True).set_index("architecture").reset_index()


def rebuilt_runs(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[float, tuple[int, int]]]:
    """How many runs of a budget have losses rebuilt with published fits as constraints, and how many runs it has.

    Returns
    -------
    dict
        by architecture and budget (FLOP); budgets without such a run are left out.
    """
    found: dict[str, dict[float, tuple[int, int]]] = {}
    for name, table in tables.items():
        imposed = table["imposed_published_fit"].eq(1) if "imposed_published_fit" in table else table["val_loss"].isna()
        by_budget = imposed.groupby(table["isoflop_budget"]).agg(["sum", "size"])
        found[name] = {float(b): (int(n), int(of)) for b, n, of in by_budget.itertuples() if n}
    return found


def show_runs(settings: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Html:
    """The table of `settings_by_architecture`, as far as its runs have the columns; `tables`: its runs."""
    off = (settings["mean_train_flops"] / settings["isoflop_budget"] - 1).abs().max()
    table = settings[["architecture", "isoflop_budget", "num_runs", "flops_spread"]].copy()
    table["isoflop_budget"] = _marked(table, {label_of(name): found for name, found in rebuilt_runs(tables).items()})
    table["sizes"] = [_span(count(a), count(b)) for a, b in settings[["smallest", "largest"]].to_numpy()]
    if "batch_tokens" in settings:
        table["batch"] = settings["batch_tokens"]
    if "learning_rate_low" in settings:
        rates = settings[["learning_rate_low", "learning_rate_high"]].to_numpy()
        table["rate"] = [_span(f"{a:.4f}", f"{b:.4f}") for a, b in rates]
    formats: dict[str, str | Callable[[float], str]] = {"flops_spread": "{:.3f}"}
    formats["batch"] = lambda value: count(value, 2)
    labels = {"isoflop_budget": "budget (FLOP)", "num_runs": "runs", "flops_spread": "largest C / least C"}
    labels |= {"sizes": "sizes N", "batch": "batch (tokens)", "rate": "learning rate"}
    return show_table(
        table,
        name="isoflop-runs",
        caption="IsoFLOP runs by budget. Within a budget C is nearly, not exactly, the same for all sizes. The mean C "
        f"of a budget is at most {percent(off)} away from it.{_asterisk(table)}",
        formats={column: style for column, style in formats.items() if column in table},
        labels={column: heading for column, heading in labels.items() if column in table},
    )


def _marked(table: pd.DataFrame, rebuilt: Mapping[str, Mapping[float, object]]) -> list[str]:
    """Budgets as text, with an asterisk where losses are rebuilt; by the architecture as printed, "" for any."""
    return [
        power_of_ten(budget) + ("\u00a0*" if budget in rebuilt.get(name, ()) else "")
        for name, budget in table[["architecture", "isoflop_budget"]].itertuples(index=False)
    ]


def _asterisk(table: pd.DataFrame) -> str:
    """What an asterisk means, if the column `isoflop_budget` has one."""
    marked = any("*" in str(text) for text in table["isoflop_budget"])
    return " An asterisk: some losses were rebuilt from the published fits." if marked else ""


def _span(low: str, high: str) -> str:
    """Two ends of a range as one text, or one value where they are the same."""
    return low if low == high else f"{low}\u2060–\u2060{high}"  # joined: no line ends at the dash


def show_optima(every: Mapping[Key, IsoflopFit], tables: Mapping[str, pd.DataFrame]) -> Html:
    """N\\*, its standard error in two ways, D\\*, D\\*/N\\* and the loss at every budget that has an optimum over N.

    `tables`: the runs behind the fits.
    """
    rows = []
    for name in architectures_of(every):
        sizes, tokens = every[name, "num_params"], every[name, "num_tokens"]
        best_tokens = {profile.isoflop_budget: profile.x_opt for profile in tokens.optima}
        for i, profile in enumerate(sizes.optima):
            delta = profile.fit.log10_x_opt_standard_error if profile.fit else np.nan
            spread = standard_spread(np.log10(sizes.x_opt_resamples[:, i]))
            row = {
                "architecture": label_of(name),
                "isoflop_budget": profile.isoflop_budget,
                "num_params": profile.x_opt,
            }
            row |= {"delta": 10**delta - 1, "bootstrap": 10**spread - 1}
            best = best_tokens.get(profile.isoflop_budget, np.nan)
            row |= {"num_tokens": best, "per_param": best / profile.x_opt, "loss": profile.loss_opt}
            rows.append(row)
    table = pd.DataFrame(rows)
    table["isoflop_budget"] = _marked(table, {label_of(name): found for name, found in rebuilt_runs(tables).items()})
    return show_table(
        table,
        name="isoflop-optima",
        caption="The optimum of every budget. Standard errors of N* by the delta method and by the bootstrap."
        + _asterisk(table),
        formats=dict.fromkeys(("delta", "bootstrap"), percent)
        | dict.fromkeys(("num_params", "num_tokens"), count)
        | {"per_param": lambda ratio: significant(ratio, 2), "loss": "{:.4f}"},
        labels={"isoflop_budget": "budget (FLOP)", "num_params": "N*", "num_tokens": "D* (tokens)"}
        | {"delta": "± delta", "bootstrap": "± bootstrap", "per_param": "D*/N*"}
        | {"loss": "loss at N* (nats/token)"},
    )


def show_published_laws(published: Mapping[Key, IsoflopFit]) -> Html:
    """Power laws of the published procedure, with two kinds of interval of the exponent."""
    rows = [
        {
            "architecture": label_of(name),
            "law": SYMBOLS[x],
            "prefactor": fit.power_law.law.prefactor,
            "exponent": fit.power_law.law.exponent,
            "error": fit.power_law.exponent_standard_error,
            "interval": interval(fit.power_law.interval("exponent")),
            "bootstrap": interval(fit.interval("exponent")),
        }
        for (name, x), fit in published.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="isoflop-published-laws",
        caption="Power laws by the published procedure. Its standard error, and 95 % intervals by Student's t and by "
        "the bootstrap.",
        formats={"prefactor": lambda v: significant(v, 4), "exponent": "{:.4f}", "error": "{:.4f}"},
        labels={"error": "standard error", "interval": "Student interval", "bootstrap": "bootstrap interval"},
    )


def show_ledger_sections(rows: list[LedgerRow]) -> Html:
    """Counts of verdicts by section of the ledger."""
    table = summarize(rows)
    table["section"] = table["section"].str.replace("_", " ")
    return show_table(
        table,
        caption="Published numbers, by section of the ledger.",
        labels={"not independent": "of these not independent"},
    )


def show_ledger_rows(rows: list[LedgerRow]) -> Html:
    """Some rows of the ledger: exponents of N\\* at T = 8192, one optimum, one compute-optimal model."""
    ledger = to_frame(rows)
    entry, quantity = ledger["entry"], ledger["quantity"]
    laws = entry.str.contains("T=8192 N") & entry.str.contains("1e20") & quantity.str.startswith("exponent")
    best = entry.eq("xlstm T=8192 isoflop_budget=1e+20 num_params") & quantity.isin(["x_opt", "loss_opt"])
    chosen = ledger[laws | best | entry.eq("num_params=1e+09")]
    table = pd.DataFrame(
        {
            "number": [_published_number(row["entry"], row["quantity"]) for row in chosen.to_dict("records")],
            "published": chosen["published"].map(full_number),
            "ours": chosen["ours"].map(full_number),
            "independent": chosen["independent"].map({True: "yes", False: "no"}),
            "verdict": chosen["verdict"],
        }
    )
    return show_table(
        table,
        name="isoflop-ledger-rows",
        caption="Examples at T = 8192: exponents of N*, one optimum, and the published row for 1B parameters.",
        labels={"number": "published number"},
    )


def _published_number(entry: str, quantity: str) -> str:
    """What a row of the ledger is about, in words; an entry of another kind keeps its own."""
    if entry.startswith("num_params="):
        name, _, what = quantity.partition("_")
        return f"{label_of(name)}: {'C (FLOP)' if what == 'train_flops' else 'D (tokens)'} at which 1B is optimal"
    name = label_of(entry.split(" ")[0])
    words = {"exponent": "exponent a", "exponent_std": "standard error of a"}
    words |= {"x_opt": "N* at 1×10²⁰ FLOP", "loss_opt": "loss at N* (nats/token)"}
    return f"{name}: {words.get(quantity, quantity)}"


def show_errors(errors: pd.DataFrame) -> Html:
    """The table of `errors_by_context`."""
    table = errors[["T", "architecture", "optima"]].copy()
    for key in ("published", "joint"):
        pairs = errors[[key, f"half_{key}"]].to_numpy(dtype=float)
        table[key] = [f"{error:.4f} ({half:.3f})" if np.isfinite(half) else "–" for error, half in pairs]
    table.insert(4, "bootstrap", errors["bootstrap"].map("{:.4f}".format))
    table["nearer"] = errors["nearer"]
    return show_table(
        table,
        name="isoflop-errors",
        caption="Standard errors by procedure, of the exponent of N*. In parentheses: half the width of the 95 % "
        "interval. Would lie nearer: how many such optima on a true power law would lie nearer to a line than these.",
        formats={"nearer": percent},
        labels={"published": "published procedure", "joint": "joint fit", "nearer": "would lie nearer"},
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
    every = pd.concat([table.assign(law=SYMBOLS[x]) for x, table in differences.items()])
    every["interval"] = [interval(bounds) for bounds in zip(every["low"], every["high"], strict=True)]
    return show_table(
        every[["law", "choice", "first", "second", "difference", "interval", "p_value"]],
        name="isoflop-differences",
        caption=f"Differences of the exponents: {the(first)} minus {the(second)}, and p of no difference.",
        formats=dict.fromkeys(("first", "second"), "{:.4f}") | {"difference": "{:+.3f}", "p_value": p_value},
        labels={"first": label_of(first), "second": label_of(second), "interval": "95 % interval", "p_value": "p"},
    )


def show_ratios(
    ratios: Mapping[str, pd.DataFrame], first: str, second: str, tables: Mapping[str, pd.DataFrame]
) -> Html:
    """Optima of two architectures and their ratio, by x tables of `optimum_ratio`; `tables`: the runs behind them."""
    every = pd.concat([table.assign(law=SYMBOLS[x], architecture="") for x, table in ratios.items()])
    found = rebuilt_runs(tables)
    every["isoflop_budget"] = _marked(every, {"": found[first] | found[second]})
    every["interval"] = [interval(bounds, 2) for bounds in zip(every["low"], every["high"], strict=True)]
    return show_table(
        every[["law", "isoflop_budget", "first", "second", "ratio", "interval"]],
        name="isoflop-ratios",
        caption=f"Optimum of {the(first)} over that of {the(second)} at equal compute, with bootstrap intervals."
        + _asterisk(every),
        formats={"first": count, "second": count, "ratio": "{:.2f}"},
        labels={"isoflop_budget": "budget (FLOP)", "first": label_of(first), "second": label_of(second)}
        | {"interval": "95 % interval"},
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
        exponents_by_convention(table, conventions, budgets[name]).assign(model=label_of(name))
        for name, table in tables.items()
    ]  # fmt: skip
    result = pd.concat(parts) if parts else pd.DataFrame()
    result.attrs["missing"] = missing
    return result


def show_conventions(exponents: pd.DataFrame) -> Html:
    """The table of `exponents_by_architecture_and_convention`, or a sentence that says what it needs."""
    if exponents.attrs["missing"]:
        return Html(f"<p>This table cannot be counted again: {exponents.attrs['missing']}.</p>")
    table = exponents[["model", "convention", "flops_ratio", "spread", "a"]].copy()
    bounds = exponents[["a_joint", "a_low", "a_high"]].to_numpy()
    table["a_joint"] = [f"{a:.3f} {interval((low, high))}" for a, low, high in bounds]
    return show_table(
        table.assign(b=exponents["b"], b_joint=exponents["b_joint"]),
        name="isoflop-conventions",
        caption="Exponents by convention. paper: every layer, causal attention halved; chinchilla: "
        "attention not halved, softmax and embedding counted; 6ND: 6 FLOP per parameter and token. Ratio: recounted "
        "C over given C. Spread: largest over smallest C within a budget.",
        formats=dict.fromkeys(("flops_ratio", "spread"), "{:.2f}") | dict.fromkeys(("a", "b", "b_joint"), "{:.3f}"),
        labels={"model": "architecture", "flops_ratio": "ratio", "a": "a, two steps", "a_joint": "a, joint"}
        | {"b": "b, two steps", "b_joint": "b, joint"},
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
        row = {"architecture": label_of(name), "T": length or "–", "N*": float(fit.law.predict(train_flops))}
        rows.append(row | {"interval": f"[{count(float(low))}, {count(float(high))}]"})
    need(rows, "no context length has the same budgets for all architectures")
    table = pd.DataFrame(rows).sort_values("architecture", kind="stable")
    table["change"] = table["N*"] / table.groupby("architecture")["N*"].transform("first") - 1
    return show_table(
        table,
        caption=f"Optimal size at {power_of_ten(train_flops)} FLOP by the joint law, and its change from the shortest "
        "context.",
        formats={"N*": count, "change": signed_percent},
        labels={"interval": "95 % interval"},
    )


def show_growth(joint: Mapping[Key, JointIsoflopFit], factor: float) -> Html:
    """By what factors the optimum grows when compute grows by `factor`, by the joint laws."""
    rows = []
    for name in architectures_of(joint):
        size, tokens = (factor ** joint[name, x].law.exponent for x in SYMBOLS)
        rows.append({"architecture": label_of(name), "N*": size, "D*": tokens, "product": size * tokens})
    return show_table(
        pd.DataFrame(rows),
        caption=f"Growth of the optimum when compute grows {factor:g}-fold, by the joint laws.",
        formats=dict.fromkeys(("N*", "D*", "product"), "{:.2f}"),
        labels={"N*": "factor of N*", "D*": "factor of D*", "product": "their product"},
    )


def show_without_one_budget(
    rows: Sequence[tuple[str, float, float, IsoflopFit | None, JointIsoflopFit | None]],
) -> Html:
    """Exponents of N\\* without one budget: architecture, budget, lever, two-step fit, joint fit (None: refused)."""
    table = [
        {
            "architecture": label_of(name),
            "without": budget,
            "lever": lever,
            "two steps": two_steps.power_law.law.exponent if two_steps else np.nan,
            "joint": joint.law.exponent if joint else np.nan,
        }
        for name, budget, lever, two_steps, joint in rows
    ]
    return show_table(
        pd.DataFrame(table, columns=["architecture", "without", "lever", "two steps", "joint"]),
        caption="Exponent of N* without one budget. Lever: change of the two-step exponent per decade by which that "
        "optimum moves.",
        labels={"without": "left out (FLOP)"},
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
        {"architecture": label_of(name), "window": decades, "runs": num_runs}
        | {"exponent": fit.law.exponent, "error": fit.exponent_standard_error}
        for name, decades, num_runs, fit in rows
    ]
    return show_table(
        pd.DataFrame(table),
        caption="Exponent of N* by the joint fit from sizes within a window around each optimum.",
        formats={"exponent": "{:.3f}", "error": "{:.3f}"},
        labels={"window": "window (± decades)", "error": "standard error"},
    )
