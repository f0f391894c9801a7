"""Words for what the ledger names by the fields of its file: entries, numbers, digits, notes, and values as text."""

import math
import re
from collections.abc import Callable

from companion.chapters.labels import label_of
from companion.formatting import count, listed, power_of_ten, significant
from companion.ledger import SPREAD_FACTOR, half_unit

#: Heading of every section of the ledger on the page, in its order.
SECTION_TITLES = {
    "isoflop_power_laws": "IsoFLOP power laws",
    "isoflop_optima": "IsoFLOP optima",
    "compute_optimal_table_8192": "Compute-optimal table",
    "parametric_fits": "Parametric fits",
    "overtraining_slopes": "Over-training slopes",
    "inference_fits": "Inference fits",
    "inference_model_sizes": "Sizes of the timed models",
    "inference_measurement_counts": "Counts of inference measurements",
    "run_table_statistics": "Statistics of the run table",
}

_QUANTITIES = {
    "exponent": "exponent",
    "exponent_std": "standard error of the exponent",
    "prefactor": "prefactor",
    "prefactor_std": "standard error of the prefactor",
    "num_points": "number of optima",
    "x_opt": "optimum",
    "loss_opt": "loss at the optimum",
    "mean_train_flops": "mean C (FLOP)",
    "a": "log A",
    "b": "log B",
    "e": "log E",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "eta": "η",
    "eta_transformer": "η, Transformer",
    "eta_xlstm": "η, xLSTM",
    "lambda_": "λ",
    "log_lambda": "log λ",
    "alpha_eff_flops_per_s": "α (FLOP/s)",
    "alpha_over_peak": "α over the peak",
    "beta_eff_bytes_per_s": "β (bytes/s)",
    "eps_s": "ε (s)",
    "eps_bp_s": "ε per sequence (s)",
    "num_params": "parameters N",
    "num_runs": "runs",
    "paper_count": "runs, as the paper counts them",
    "sum_train_flops": "sum of C (FLOP)",
}
_COLUMNS = {"num_params": "N", "num_tokens": "D", "train_flops": "C (FLOP)"}
_TIMED = {"rows": "rows", "step_time_valid": "step times", "ttft_valid": "times to first token"}
_ORDINALS = {"min": "least", "25": "25th percentile", "50": "median", "75": "75th percentile", "max": "largest"}
_DESIGNS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param", "all": "all"}

_RAISED = {"a": "ᵃ", "b": "ᵇ"}

Replacement = str | Callable[[re.Match[str]], str]
#: What an entry's label is made of, and how the page writes it.
_PARTS: tuple[tuple[str, Replacement], ...] = (
    (r"^(transformer|xlstm)\b", lambda found: label_of(found[1])),
    (r"\s(\d+(?:\.\d+)?)([mb])\b", lambda found: f" {found[1]}{found[2].upper()}"),
    (r"\s+T=(\d+)", r", T = \1"),
    (
        r"\s+([ND])\*\(C\) = ([AB])_prime \* C\*\*([ab])",
        lambda found: f", {found[1]}* = {found[2]}′C{_RAISED[found[3]]}",
    ),
    (r"\s+\(budgets with mean FLOPs in \[(\S+), (\S+)\]\)", lambda found: f" (mean C {_span(found[1], found[2])})"),
    (
        r"\s+(\d+e\d+(?:,\d+e\d+)+)",
        lambda found: f", budgets {listed(power_of_ten(float(each)) for each in found[1].split(','))} FLOP",
    ),
    (r"\s+isoflop_budget=(\S+)", lambda found: f", {power_of_ten(float(found[1]))} FLOP"),
    (r"\s+(num_params|num_tokens)$", lambda found: f", over {_COLUMNS[found[1]]}"),
    (r"\s+(isoflop|tokenparam|all)(?= )", lambda found: f", {_DESIGNS[found[1]]} runs"),
    (r"\s+huber_delta=(\S+)", r", δ = \1"),
    (r"\s+fit_gamma=True", ", γ free"),
    (r"\s+fit_gamma=False", ", γ = 1"),
    (r"(?:^|\s+)token_param_ratio=(\S+)", r", M = \1"),
    (r"\s+mlstm forward FLOPs", ", mLSTM FLOPs"),
    (r"\s+attention FLOPs", ", attention FLOPs"),
    (r"\(FLOPs of runs\.csv\)", "(those of the run table)"),
    (r"\s+table_of_the_paper=True", ", in the table of the paper"),
    (r"\s+ttft$", ", time to first token"),
    (r"\s+step_time$", ", step time"),
    (r"\s+d_model=(\d+)", r", d_model \1"),
    (r"\s+n_(layers|heads)=(\d+)", r", \2 \1"),
    (r"\s+d_ff=(\d+)", r", d_ff \1"),
    (r"^num_params=(\S+)", lambda found: f"N = {count(float(found[1]))}"),
)
#: Parts of notes that the page says in other words.
_NOTES = {
    "published: the fit of least all-pairs mse among the 100 lowest objectives; ours: the lowest objective; their "
    "parameters differ from about the third or fourth digit": "published is, among the 100 fits with the lowest "
    "objectives, the one with the least mean squared error over all pairs; ours is the fit with the lowest objective; "
    "their parameters differ from about the third or fourth digit on",
    "one resample of the timings (default_rng(0))": "fitted to one resample of the timings (default_rng(0))",
    "squares of Huber losses are summed": "the squares of Huber losses are summed",
}


def entry_words(entry: str) -> str:
    """The label of an entry as the page writes it: `xLSTM, T = 2048, 6×10¹⁸ FLOP, over N`."""
    for pattern, words in _PARTS:
        entry = re.sub(pattern, words, entry)
    return entry.removeprefix(", ")


def quantity_words(quantity: str) -> str:
    """The name of a number as the page writes it: `standard error of the exponent`; an unknown name stays as it is."""
    if quantity in _QUANTITIES:
        return _QUANTITIES[quantity]
    if found := re.fullmatch(r"parabola_([abc])(_std)?", quantity):
        return f"{'standard error of' if found[2] else 'coefficient'} {found[1]}"
    if found := re.fullmatch(r"(transformer|xlstm)_(num_tokens|train_flops)", quantity):
        return f"{label_of(found[1])}, {_COLUMNS[found[2]]}"
    if found := re.fullmatch(r"(transformer|xlstm)(?:\.(\w+))?", quantity):
        return f"{label_of(found[1])}, {_TIMED.get(found[2], found[2])}" if found[2] else f"{label_of(found[1])} runs"
    if found := re.fullmatch(r"by_set\.(\w+)_ctx(\d+)\.(\w+)", quantity):
        return f"{label_of(found[3])} runs, {_DESIGNS.get(found[1], found[1])}, T = {found[2]}"
    if found := re.fullmatch(r"(\w+)_quantiles\.(\w+)", quantity):
        return f"{_COLUMNS.get(found[1], found[1])}, {_ORDINALS.get(found[2], found[2])}"
    return quantity


def source_words(source: str, printed_digits: str) -> str:
    """Where an entry was published, and with how many digits."""
    source = re.sub(r"notebooks/(?:\w+/)*([\w-]+)\.ipynb cells? ", r"authors' notebook \1, cell ", source)
    if re.fullmatch(r"[\d-]+", printed_digits):
        printed_digits += " digits"
    digits = re.sub(r"(\d) significant\b.*", r"\1 significant digits", printed_digits)
    words = "; ".join(filter(None, (source, digits.replace("float64 in pickle", "stored in float64"))))
    return re.sub(r"(cell |; |^)(\d+)-(\d+)", r"\1\2–\3", words)


def note_words(note: str) -> str:
    """A note as a sentence; empty for none."""
    for part, words in _NOTES.items():
        note = note.replace(part, words)
    return f"{note[:1].upper()}{note[1:]}." if note else ""


def value_text(value: float, digits: int = 10) -> str:
    """A value with at most that many significant digits, powers of ten as a page writes them: 1.07133934×10¹⁰."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return (mantissa + (power_of_ten(10.0 ** int(exponent))[1:] if exponent else "")).replace("-", "−", 1)


def ours_text(value: float, tolerance: float) -> str:
    """A value with one digit more than its tolerance makes sense of, 3 to 12 significant digits."""
    digits = 12
    if value and tolerance > 0:
        digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(tolerance)) + 2
    return value_text(value, min(max(digits, 3), 12))


def published_text(value: float, ours: str) -> str:
    """A published value with all its digits, as a power of ten where our value beside it is one."""
    text = value_text(value)
    if "×" not in ours or "×" in text:
        return text
    mantissa, _, exponent = f"{value:.9e}".partition("e")
    return (mantissa.rstrip("0").rstrip(".") + power_of_ten(10.0 ** int(exponent))[1:]).replace("-", "−", 1)


def small_text(value: float, digits: int = 2) -> str:
    """A difference or a tolerance with few digits: 0.0066, −3.1×10⁻⁶."""
    text = significant(value, digits) if value == 0 or 1e-3 <= abs(value) < 1e5 else power_of_ten(value, digits)
    return text.replace("-", "−", 1)


def tolerance_parts(published: float, printed_digits: str, tolerance: float) -> str:
    """What a tolerance adds up from: half a unit of the last digit and, if any, multiples of the data's rounding.

    `exact` for a count. The same as `LedgerRow.tolerance_reason`, in short.
    """
    printing = half_unit(published, printed_digits)
    spread = (tolerance - printing - 1e-12 * abs(published)) / SPREAD_FACTOR
    if spread > 1e-9 * tolerance:
        return f"{small_text(printing, 1)} + {SPREAD_FACTOR:g} × {small_text(spread, 1)}"
    return "" if printing else "exact"


def _span(low: str, high: str) -> str:
    return f"from {power_of_ten(float(low))} to {power_of_ten(float(high))} FLOP"
