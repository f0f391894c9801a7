"""`companion design`: which runs to train next, for what a reader wants to know and can spend."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.options import add_json, add_level, count, gamma, positive, whole
from companion.errors import InputError
from companion.fitting.fit import HUBER_DELTA, fit
from companion.formatting import count as as_count
from companion.formatting import level_text, power_of_ten, signed, signed_percent, significant
from companion.hardware import REFERENCE_HARDWARE
from companion.laws import LossSurface, ProductLaw
from companion.laws.base import Law
from companion.runs.load import load_paper_runs, load_runs
from companion.runs.select import subset
from companion.study.next_runs.advice import Advice, advise
from companion.study.next_runs.candidates import Hours, Pricing, default_candidates, pricing_of
from companion.study.next_runs.choose import CRITERIA, MAX_RUNS, METHODS
from companion.study.next_runs.identify import identifying_design
from companion.study.next_runs.information import Noise, linear_law, repeat_noise
from companion.study.next_runs.quantities import FORMS, parse_quantity
from companion.training.logs import load_training_logs
from companion.training.measured import MeasuredUtilization

LAWS: dict[str, type[Law]] = {"surface": LossSurface, "product": ProductLaw}
#: Noise of the log loss where a table is too small to show any: about that of the paper's IsoFLOP runs.
_USUAL_NOISE = 0.005
#: Shift of a wrong law, in half widths of the interval, from which the interval is not to be believed.
_TOO_FAR = 1.0
#: Scatter about the law over that of repeated runs from which the law is said to miss something.
_MISFIT = 2.0
#: Factor beyond the table's ratios of tokens to parameters from which a reader is warned.
_BEYOND = 1.5


def add_design(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register `companion design`."""
    parser = command(
        "design",
        run,
        "which runs to train next: those that shrink the interval of a target quantity most for a budget",
        "  companion design data/runs.csv --architecture xlstm --context-length 8192 --budget 1e21 \\\n"
        "      --for optimum@1e24\n"
        "  companion design data/runs.csv --architecture transformer --context-length 8192 --gpu-hours 500 \\\n"
        "      --for loss@70e9,1.4e12 --runs 8 --gamma free\n"
        "  companion design my_runs.csv --budget 3e20 --for exponent --max-params 2e9 --json\n"
        "\n"
        f"Target quantities: {FORMS}.",
    )
    parser.add_argument("file", type=Path, metavar="RUNS", help="run table (CSV)")
    parser.add_argument("--architecture", help="only runs of this architecture")
    parser.add_argument("--context-length", type=whole, metavar="T", help="only runs of this context length")
    parser.add_argument("--where", metavar="CONDITION", help="only runs for which a condition on columns holds")
    parser.add_argument("--for", dest="wanted", required=True, metavar="NUMBER", help="what to know: see below")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--budget", type=positive, metavar="C", help="training compute of all new runs, FLOP")
    budget.add_argument("--gpu-hours", type=positive, metavar="H", help="device hours of all new runs")
    _add_method(parser)
    for option, meaning in (
        ("--min-params", "smallest size of a new run (default: the table's)"),
        ("--max-params", "largest size of a new run (default: three times the table's)"),
        ("--min-ratio", "fewest tokens per parameter (default: about the table's)"),
        ("--max-ratio", "most tokens per parameter (default: about the table's)"),
        ("--noise", "standard deviation of the log loss (default: that of the fit's residuals)"),
        ("--utilization", "share of peak FLOP/s in training (default: as measured by the authors' logs)"),
    ):
        parser.add_argument(option, type=positive, metavar="X", help=meaning)
    parser.add_argument(
        "--hardware", default=REFERENCE_HARDWARE, metavar="NAME", help="row of data/hardware.csv (default: %(default)s)"
    )
    parser.add_argument("--seed", type=count, default=0, help="of the random designs (default: %(default)s)")
    add_level(parser)
    add_json(parser)


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--law", choices=tuple(LAWS), default="surface", help="law of the loss (default: %(default)s)")
    parser.add_argument(
        "--gamma", type=gamma, default=1.0, metavar="free|G", help="outer exponent of the surface (default: 1)"
    )
    parser.add_argument("--huber-delta", type=positive, default=HUBER_DELTA, help="of the fits (default: %(default)s)")
    parser.add_argument(
        "--criterion",
        choices=CRITERIA,
        default="V",
        help="V: variance of the target quantity; D: of all parameters together (default: V)",
    )
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="of choice (default: %(default)s)")
    parser.add_argument(
        "--runs", type=whole, default=MAX_RUNS, metavar="K", help="most new runs (default: %(default)s)"
    )
    parser.add_argument(
        "--copies", type=whole, default=1, metavar="K", help="most runs of one size and length, with other seeds"
    )


def run(arguments: argparse.Namespace) -> None:
    """Choose runs, and print as text or as one JSON object."""
    loaded = load_runs(arguments.file)
    runs = subset(loaded, arguments.architecture, arguments.context_length, where=arguments.where)
    try:
        advice, pricing = _advice(arguments, runs)
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    if arguments.json:
        return print_json(_as_json(arguments, runs, advice))
    _print(arguments, runs, advice, pricing)
    return None


def _advice(arguments: argparse.Namespace, runs: pd.DataFrame) -> tuple[Advice, Pricing]:
    pricing = pricing_of(runs, _hours(arguments, runs) if arguments.gpu_hours else None)
    budget = arguments.gpu_hours or arguments.budget
    if not math.isfinite(budget):
        raise InputError("the budget must be finite")
    quantity = parse_quantity(arguments.wanted, pricing.cost)
    law = LAWS[arguments.law]
    held: dict[str, Any] = {} if arguments.gamma is None or law is ProductLaw else {"gamma": arguments.gamma}
    candidates = default_candidates(
        runs,
        pricing,
        budget,
        (arguments.min_params, arguments.max_params),
        (arguments.min_ratio, arguments.max_ratio),
    )
    found, problem = None, ""
    try:
        found = fit(law, runs, huber_delta=arguments.huber_delta, **held)
        problem = "" if found.identified else f"the law is not identified: {found.status_detail}"
    except InputError as error:
        problem = str(error)
    if found is None or problem:
        raise InputError(f"{problem}; {_what_to_add(arguments, runs, candidates, budget, held)}")
    advice = advise(
        found,
        quantity,
        candidates,
        pricing,
        budget,
        criterion=arguments.criterion,
        method=arguments.method,
        max_runs=arguments.runs,
        copies=arguments.copies,
        noise=Noise(sd=arguments.noise) if arguments.noise else None,
        level=arguments.level,
        seed=arguments.seed,
    )
    return advice, pricing


def _hours(arguments: argparse.Namespace, runs: pd.DataFrame) -> Hours:
    """Device hours by a given utilization, or by the authors' logs where they have the architecture."""
    if arguments.utilization is not None:
        return Hours(utilization=arguments.utilization, hardware=arguments.hardware)
    values: dict[str, Any] = {}
    for column in ("architecture", "context_length"):
        found: Any = runs[column].dropna().unique() if column in runs else []
        if len(found) != 1:
            option = column.replace("_", "-")
            raise InputError(f"GPU-hours need one {column}: choose with --{option}, or give --utilization")
        values[column] = found[0]
    measured = MeasuredUtilization.of(load_training_logs())
    if values["architecture"] not in measured.curves:
        raise InputError(f"no utilization of {values['architecture']!r} is known: give --utilization")
    return Hours(
        utilization=measured,
        hardware=arguments.hardware,
        architecture=str(values["architecture"]),
        context_length=float(values["context_length"]),
    )


def _what_to_add(
    arguments: argparse.Namespace, runs: pd.DataFrame, candidates: pd.DataFrame, budget: float, held: dict[str, Any]
) -> str:
    """Runs that would determine the law, in words: D-optimal about the paper's law."""
    paper = load_paper_runs()
    known = arguments.architecture if arguments.architecture in set(paper["architecture"]) else "transformer"
    guess = fit(LAWS[arguments.law], subset(paper, known, 8192), **held).law
    linear = linear_law(guess, arguments.noise or _USUAL_NOISE, held, arguments.huber_delta)
    few = len(linear.names) + 3
    try:
        design = identifying_design(linear, runs, candidates, budget, max_runs=min(few, arguments.runs))
    except InputError as error:
        return str(error)
    each = [
        f"{as_count(size)} on {as_count(tokens)}" for size, tokens in design[["num_params", "num_tokens"]].to_numpy()
    ]
    return f"by the paper's law of the {known} these runs (N on D) would determine it: {', '.join(each)}"


def _as_json(arguments: argparse.Namespace, runs: pd.DataFrame, advice: Advice) -> dict[str, Any]:
    names = ("architecture", "budget", "gpu_hours", "law", "gamma", "criterion", "method", "level", "seed")
    return {
        "file": str(arguments.file),
        **{name: getattr(arguments, name) for name in names},
        "num_runs": len(runs),
        "wanted": advice.quantity.label,
        "value": advice.value,
        "interval": list(advice.interval),
        "standard_error": advice.standard_error,
        "in_logs": advice.quantity.in_logs,
        "noise": {"sd": advice.linear.noise.sd, "source": advice.linear.noise.source},
        "runs": _records(advice.runs.drop(columns="cost")),
        "designs": _records(advice.compared),
        "alternatives": _records(advice.alternatives),
        "warnings": _warnings(runs, advice),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with null for what is not known."""
    rows = table.to_dict("records")
    return [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]


def _warnings(runs: pd.DataFrame, advice: Advice) -> list[str]:
    notes = list(advice.linear.notes)
    for column in ("architecture", "context_length"):
        if column in runs and len(values := sorted(runs[column].dropna().unique())) > 1:
            notes.append(f"one law for several {column} values: {', '.join(map(str, values))}")
    repeated = repeat_noise(runs)
    if repeated is not None and advice.linear.noise.sd > _MISFIT * repeated.sd:
        notes.append(
            f"the residuals scatter {significant(advice.linear.noise.sd / repeated.sd, 2)} times as much as repeated "
            "runs do: the law misses something, and intervals do not hold what it misses"
        )
    ratios = runs["num_tokens"].astype(float) / runs["num_params"]
    beyond = ~advice.runs["tokens_per_param"].between(ratios.min() / _BEYOND, ratios.max() * _BEYOND)
    if beyond.any():
        notes.append(
            f"{beyond.sum()} of the runs lie outside the table's {significant(ratios.min())} to "
            f"{significant(ratios.max())} tokens per parameter: whether the law holds there, no run has shown"
        )
    for row in advice.alternatives.to_dict("records"):
        if abs(row["shift_in_half_widths"]) > _TOO_FAR:
            notes.append(
                f"if the law is really {row['law']!r}, the result will miss by "
                f"{significant(abs(row['shift_in_half_widths']), 2)} half widths of its interval"
            )
    return notes


def _print(arguments: argparse.Namespace, runs: pd.DataFrame, advice: Advice, pricing: Pricing) -> None:
    style = as_count if advice.value >= 1e6 else lambda value: significant(value, 4)
    unit = "FLOP" if pricing.unit == "train_flops" else "GPU-hours"

    def band(low: float, high: float) -> str:
        return f"{style(low)} to {style(high)}" if math.isfinite(low) and math.isfinite(high) else "not determined"

    def cost(value: float) -> str:
        return power_of_ten(value, 3) if unit == "FLOP" else significant(value)

    print(
        f"{advice.quantity.label}: {style(advice.value)} by {len(runs)} runs, {level_text(advice.level)} interval "
        f"{band(*advice.interval)}"
    )
    print(f"noise of the log loss {significant(advice.linear.noise.sd)} ({advice.linear.noise.source})\n")
    chosen = advice.runs
    table = pd.DataFrame(
        {
            "N": chosen["num_params"].map(as_count),
            "D": chosen["num_tokens"].map(as_count),
            "D/N": chosen["tokens_per_param"].map(significant),
            "FLOP": chosen["train_flops"].map(lambda value: power_of_ten(value, 3)),
        }
    )
    if unit != "FLOP":
        table["GPU-hours"] = chosen["gpu_hours"].map(significant)
    table["interval after it"] = [band(*ends) for ends in chosen[["low", "high"]].to_numpy()]
    print_table(table)
    print(
        f"\n{len(chosen)} runs, {cost(chosen['cost'].sum())} of {cost(arguments.gpu_hours or arguments.budget)} {unit}"
    )
    print("\nwhat designs of this budget are expected to give")
    others = advice.compared
    intervals = [note or band(low, high) for note, low, high in others[["note", "low", "high"]].to_numpy()]
    spent = others["spent"].map(cost)
    print_table(
        pd.DataFrame({"design": others["design"], "runs": others["num_runs"], unit: spent, "interval": intervals})
    )
    print("\nif another law holds")
    print_table(_alternatives(advice, style, band))
    for note in _warnings(runs, advice):
        print(f"warning: {note}")


def _alternatives(advice: Advice, style: Callable[[float], str], band: Callable[[float, float], str]) -> pd.DataFrame:
    """Other laws: what they say today and after the chosen runs, and how far the assumed law would be off."""
    rows = []
    for row in advice.alternatives.to_dict("records"):
        known = math.isfinite(row["value"])
        miss = row["shift"]
        rows.append(
            {
                "law": row["law"],
                "value today": style(row["value"]) if known else row["note"] or row["status"],
                "interval after": band(row["low"], row["high"]) if known else "",
                "assumed law then off by": _miss(advice, miss) if known else "",
            }
        )
    return pd.DataFrame(rows)


def _miss(advice: Advice, shift: float) -> str:
    return signed_percent(math.expm1(shift), 1) if advice.quantity.in_logs else signed(shift, 3)
