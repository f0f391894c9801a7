"""The ledger: every published number beside ours, with a tolerance and a verdict.

Nothing is dropped: a published number that is not computed yet is a row with the verdict `not attempted`.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from companion.errors import InputError
from companion.inference.timings import load_paper_inference
from companion.ledger.sections import SECTIONS, PaperData, Value
from companion.paths import data_dir
from companion.runs.load import load_paper_runs

#: How many standard deviations of the data's own rounding a difference may reach.
SPREAD_FACTOR = 4.0

REPRODUCED, DIFFERS, NOT_ATTEMPTED = "reproduced", "differs", "not attempted"

#: Per section: the fields that say which number is meant, or are inputs; all other numbers are published results.
_INPUTS: dict[str, tuple[str, ...]] = {
    "isoflop_power_laws": ("architecture", "context_length", "quantity", "budgets_used"),
    "isoflop_optima": ("architecture", "context_length", "isoflop_budget", "x"),
    "parametric_fits": ("architecture", "context_length", "dataset", "huber_delta", "fit_gamma"),
    "overtraining_slopes": ("architecture", "token_param_ratio", "flop_mode", "table_of_the_paper"),
    "inference_fits": ("architecture", "model_size", "quantity", "peak_assumed_flops_per_s"),
    "inference_model_sizes": ("architecture", "model_size", "d_model", "n_layers", "n_heads", "d_ff"),
    "inference_measurement_counts": (),
    "run_table_statistics": (),
    "compute_optimal_table_8192": ("num_params", "printed"),
}
#: Fields of an entry that are words about it.
_WORDS = {"source", "printed_digits", "note", "method", "form", "data", "optimiser", "objective_definition"}
_WORDS |= {"also_printed", "difference", "law", "columns", "selection_rule"}
#: Inputs that are not needed to distinguish one entry from another.
_UNNAMED = {"printed", "peak_assumed_flops_per_s"}
#: Top-level entries of the published file that hold no results.
_NOT_RESULTS = {"about", "notes", "overtraining_slope_selection", "inference_hardware"}


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One published number and ours.

    `entry` names what was published within its section, `quantity` the number within the entry. `difference` is ours
    minus published. `tolerance` and `tolerance_reason` say how close the printed digits and the data's own precision
    let anyone come. `independent` is False where the data were reconstructed from the published number, so that
    agreement proves nothing about the procedure.
    """

    section: str
    entry: str
    quantity: str
    source: str
    printed_digits: str
    published: float
    ours: float | None
    difference: float | None
    tolerance: float | None
    tolerance_reason: str
    independent: bool
    verdict: str
    note: str


def load_published(path: Path | None = None) -> dict[str, Any]:
    """The published numbers (`data/published.yaml` unless a path is given).

    Raises
    ------
    InputError
        if the file cannot be read or parsed, or has a section that the ledger does not know.

    Examples
    --------
    >>> load_published()["run_table_statistics"]["num_runs"]
    640
    """
    path = path or data_dir() / "published.yaml"
    try:
        published = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(published, dict):
        raise InputError(f"{path}: is not a mapping of sections")
    if unknown := set(published) - set(_INPUTS) - _NOT_RESULTS:
        raise InputError(f"{path}: unknown section {', '.join(sorted(map(str, unknown)))}")
    return published


def build_ledger(
    published: dict[str, Any] | None = None, runs: pd.DataFrame | None = None, sections: list[str] | None = None
) -> list[LedgerRow]:
    """Every published number with ours.

    Parameters
    ----------
    published
        the published numbers; the project's own unless given.
    runs
        the run table; the project's own unless given.
    sections
        only these sections.

    Raises
    ------
    InputError
        if a section is not in the file, or the tables cannot be read.

    Examples
    --------
    >>> {row.verdict for row in build_ledger(sections=["run_table_statistics"])}
    {'reproduced'}
    """
    published = load_published() if published is None else published
    names = [name for name in published if name in _INPUTS]
    if sections is not None and (unknown := set(sections) - set(names)):
        raise InputError(f"ledger: no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    data = PaperData(load_paper_runs() if runs is None else runs, load_paper_inference(), published)
    rows: list[LedgerRow] = []
    for section in names if sections is None else sections:
        for shared, entry in _entries(published[section]):
            values = SECTIONS[section](data, entry) if section in SECTIONS else {}
            rows += _rows(section, {**shared, **entry}, entry, values)
    return rows


def to_frame(rows: list[LedgerRow]) -> pd.DataFrame:
    """The rows as a table, one column per field.

    Examples
    --------
    >>> to_frame(build_ledger(sections=["run_table_statistics"])).shape
    (28, 13)
    """
    return pd.DataFrame([asdict(row) for row in rows])


def summarize(rows: list[LedgerRow]) -> pd.DataFrame:
    """Counts by section: reproduced, of those not independent, differs, not attempted.

    Examples
    --------
    >>> int(summarize(build_ledger(sections=["run_table_statistics"]))["reproduced"].sum())
    28
    """
    frame = to_frame(rows)
    table = pd.DataFrame({"section": frame["section"].unique()}).set_index("section")
    for verdict in (REPRODUCED, DIFFERS, NOT_ATTEMPTED):
        table[verdict] = frame[frame["verdict"] == verdict].groupby("section").size()
    by_construction = frame[(frame["verdict"] == REPRODUCED) & ~frame["independent"]]
    table.insert(1, "not independent", by_construction.groupby("section").size())
    return table.fillna(0).astype(int).reset_index()


def published_numbers(section: str, entry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Names and values of the numbers that an entry publishes, nested ones as `outer.inner`."""
    for name, value in entry.items():
        if not prefix and (name in _WORDS or name in _INPUTS[section]):
            continue
        if isinstance(value, dict):
            yield from published_numbers(section, value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + str(name), float(value)


def digits_of(quantity: str, printed_digits: str) -> str:
    """What an entry says of one quantity's digits: `2 decimals (A, B: 3 significant)` has an exception for two."""
    general, _, exception = printed_digits.partition(" (")
    names, colon, own = exception.rstrip(")").partition(": ")
    return own if colon and quantity in names.split(", ") else (general if colon else printed_digits)


def half_unit(value: float, printed_digits: str) -> float:
    """Half a unit of the last printed digit of a value, from words such as `6 decimals` or `7 significant`.

    A range of digits counts as its lower end; `float64`, or a bare number of digits, as that many significant digits;
    no words mean an exact number.

    Examples
    --------
    >>> half_unit(0.547, "3 significant")
    0.0005
    """
    if value == 0 or not printed_digits:
        return 0.0  # a count: exact
    if match := re.search(r"(\d+) decimals", printed_digits):
        return 0.5 * 10.0 ** -int(match[1])
    match = re.search(r"(\d+)", printed_digits.replace("float64", "16"))
    digits = int(match[1]) if match else 3
    return 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)


def _entries(section: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of what a section says of all its entries, and one entry."""
    if isinstance(section, list):
        yield from (({}, entry) for entry in section)
    elif "rows" in section:
        shared = {name: value for name, value in section.items() if name in _WORDS}
        yield from ((shared, row) for row in section["rows"])
    else:
        yield {}, section


def _rows(section: str, described: dict[str, Any], entry: dict[str, Any], values: dict[str, Value]) -> list[LedgerRow]:
    named = [name for name in _INPUTS[section] if name in entry and name not in _UNNAMED]
    label = " ".join(_label(name, entry[name]) for name in named)
    printed_digits = str(described.get("printed_digits", ""))
    rows = []
    for quantity, published in published_numbers(section, entry):
        value = values.get(quantity)
        digits = digits_of(quantity, printed_digits)
        common: dict[str, Any] = {
            "section": section,
            "entry": label,
            "quantity": quantity,
            "source": str(described.get("source", "")),
            "printed_digits": digits,
            "published": published,
        }
        if value is None:
            rows.append(LedgerRow(**common, **_not_attempted()))
            continue
        printing = half_unit(published, digits)
        # 1e-12: float64 sums in another order
        tolerance = printing + SPREAD_FACTOR * value.spread + 1e-12 * abs(published)
        difference = value.ours - published
        reason = f"half a unit of the last digit, {printing:.1g}" if printing else "a count: exact"
        if value.spread:
            reason += f", and {SPREAD_FACTOR:g} standard deviations of the data's own rounding, {value.spread:.1g} each"
        rows.append(
            LedgerRow(
                **common,
                ours=float(value.ours),
                difference=float(difference),
                tolerance=tolerance,
                tolerance_reason=reason,
                independent=value.independent,
                verdict=REPRODUCED if abs(difference) <= tolerance else DIFFERS,
                note=value.note,
            )
        )
    return rows


def _not_attempted() -> dict[str, Any]:
    empty = dict.fromkeys(("ours", "difference", "tolerance"))
    return {**empty, "tolerance_reason": "", "independent": True, "verdict": NOT_ATTEMPTED, "note": ""}


def _label(name: str, value: Any) -> str:
    if name in ("isoflop_budget", "token_param_ratio", "num_params", "huber_delta"):
        return f"{name}={float(value):g}"
    if name == "context_length":
        return f"T={value}"
    return str(value) if isinstance(value, str) else f"{name}={value}"
