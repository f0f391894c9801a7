"""Chapter 8: the timings, and the paper's form fitted to each size alone: what such a fit can and cannot determine."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch08.common import NAMES, PARAMETER_UNITS, note_table
from companion.formatting import percent, significant
from companion.inference.one_size import InferenceFit, prefill_flops
from companion.inference.timings import COLUMNS
from companion.plotting import Html, show_table
from companion.plotting.style import architecture_label

#: Fits of `companion.inference.terms.fit_all_sizes`: by architecture, quantity and size.
SizeFits = Mapping[tuple[str, str, str], InferenceFit]

_SIZE_CAPTIONS = {
    "ttft": "Time to first token: the paper's form, size by size, with 95 % intervals. rms: of ln(predicted/measured).",
    "step_time": "Step time, batches of at least 8 as published. Where the singular values say 0, two columns of the "
    "design are one.",
}
_MEMORY = "memory_allocated_bytes_gen1"


def quantities_of(timings: pd.DataFrame) -> list[str]:
    """The quantities that a table has a column of: `ttft`, `step_time`."""
    return [quantity for quantity, column in COLUMNS.items() if column in timings]


def timings_table(timings: pd.DataFrame) -> Html:
    """How many times there are, and their ranges."""
    rows = []
    for name in NAMES:
        part = timings[timings["architecture"] == name]
        for quantity in quantities_of(timings) if len(part) else []:
            valid = part[part[COLUMNS[quantity]].notna()]
            times = 1e3 * valid[COLUMNS[quantity]]
            row = {
                "architecture": architecture_label(name),
                "quantity": quantity,
                "timings": len(valid),
                "of": len(part),
            }
            row |= {"batch": f"{valid['batch_size'].min()} to {valid['batch_size'].max()}"}
            row |= {"prompt": f"{valid['prefill_length'].min()} to {valid['prefill_length'].max()}"}
            rows.append(row | {"ms": f"{significant(times.min())} to {significant(times.max())}"})
    return show_table(
        pd.DataFrame(rows),
        caption="The timings. Missing ones failed, most of them large batches of long prompts.",
        labels={"of": "of combinations", "prompt": "prompt (tokens)", "ms": "times (ms)"},
    )


def timing_facts(timings: pd.DataFrame) -> dict[str, str]:
    """How many timings there are, and what the memory that was allocated says about the weights."""
    number = sum(int(timings[COLUMNS[quantity]].notna().sum()) for quantity in quantities_of(timings))
    return {"c8_num_timings": f"{number:,}", "c8_memory": memory_verdict(timings)}


def memory_verdict(timings: pd.DataFrame) -> str:
    """In how many bytes the weights were held, from the least memory allocated for every size."""
    if _MEMORY not in timings or "num_params" not in timings:
        return "This table does not say how much memory was allocated; weights are counted with 2 bytes"
    sizes = [timings["architecture"], timings["num_params"]]
    held = pd.to_numeric(timings[_MEMORY]).groupby(sizes).min().reset_index()
    above = (held[_MEMORY] - 2 * held["num_params"]) / 1e9
    return (
        f"The smallest memory allocated for a size is 2 bytes per parameter plus {above.min():.2f} to "
        f"{above.max():.2f} GB, for every size: the weights were held in 2 bytes"
    )


def size_table(fits: SizeFits, quantity: str) -> Html:
    """Parameters of one quantity with their intervals, a row per architecture and size."""
    rows = []
    for (name, fitted, size), fit in fits.items():
        if fitted == quantity:
            row = {"architecture": architecture_label(name), "size": size, "timings": len(fit.log_residuals)}
            row |= {PARAMETER_UNITS[p][0]: _with_interval(fit, p) for p in fit.parameters}
            singular = fit.singular_values[-1] / fit.singular_values[0]
            rows.append(row | {"rms": fit.rms_log_error, "singular": singular})
    if not rows:
        return note_table("nothing to fit in this table", _SIZE_CAPTIONS[quantity])
    return show_table(
        pd.DataFrame(rows).dropna(axis=1, how="all"),
        caption=_SIZE_CAPTIONS[quantity],
        formats={"rms": "{:.3f}", "singular": lambda v: f"{v:.2g}" if v > 1e-12 else "0"},
        labels={"singular": "smallest/largest singular value"},
    )


def bandwidth_table(free: pd.DataFrame | None, model_size: str | None) -> Html:
    """Fits with the bandwidth fixed (`inference.terms.fixed_bandwidths`); None where there is nothing to fit."""
    caption = (
        f"Step times of the xLSTM {model_size or ''} with the bandwidth fixed: the same fit every time, a negative "
        "bandwidth included."
    )
    if free is None:
        return note_table("no step times of an xLSTM in this table", caption)
    return show_table(
        free,
        caption=caption,
        formats={"beta_eff_bytes_per_s": lambda v: f"{v / 1e12:g}", "eps_s": lambda v: f"{1e3 * v:.3f}"}
        | {"eps_bp_s": lambda v: f"{1e6 * v:.1f}", "rms_log_error": "{:.6f}"},
        labels={"beta_eff_bytes_per_s": "β fixed at (TB/s)", "eps_s": "ε (ms)", "eps_bp_s": "ε per sequence (µs)"}
        | {"rms_log_error": "rms of ln(predicted/measured)"},
    )


def first_token_constants(fits: SizeFits, millisecond_fits: SizeFits) -> pd.DataFrame:
    """The constant of the time to first token from two objectives.

    Returns
    -------
    DataFrame with `architecture`, `size`, `ms` and `relative` (the constant by either objective, ms), `impossible`: how
    many of the timings the first predicts below 0.
    """
    rows = []
    for (name, quantity, size), fit in millisecond_fits.items():
        if quantity == "ttft":
            relative = fits.get((name, quantity, size))
            row = {"architecture": architecture_label(name), "size": size, "ms": 1e3 * fit.parameters["eps_s"]}
            row |= {"impossible": f"{fit.num_impossible} of {len(fit.log_residuals)}"}
            rows.append(row | {"relative": 1e3 * relative.parameters["eps_s"] if relative else np.nan})
    return pd.DataFrame(rows, columns=["architecture", "size", "ms", "impossible", "relative"])


def constants_table(fits: SizeFits, millisecond_fits: SizeFits) -> Html:
    """The table of `first_token_constants`."""
    return show_table(
        first_token_constants(fits, millisecond_fits),
        caption="The constant ε of the TTFT (ms) from two objectives: squares of (Huber-transformed) milliseconds, "
        "as published for most sizes but with every timing once, and relative errors.",
        formats={"ms": "{:.2f}", "relative": "{:.2f}"},
        labels={"ms": "ε, milliseconds", "impossible": "predicted times below 0", "relative": "ε, relative errors"},
    )


def size_facts(
    fits: SizeFits, millisecond_fits: SizeFits, notes: Sequence[str], free: pd.DataFrame | None
) -> dict[str, str]:
    """Verdicts on what the fits of single sizes determine.

    Parameters
    ----------
    notes
        what could not be fitted, in words.
    free
        as in `bandwidth_table`.
    """
    collinear = "There is nothing to show it on"
    if free is not None:
        collinear = f"Over all these bandwidths the misfit changes by {float(np.ptp(free['rms_log_error'])):.0e}"
    return {
        "c8_notes": identification_verdict(fits, notes),
        "c8_collinear": collinear,
        "c8_negative": negative_verdict(first_token_constants(fits, millisecond_fits)),
        "c8_answer_identified": rate_verdict(fits),
    }


def identification_verdict(fits: SizeFits, notes: Sequence[str]) -> str:
    """Which parameters are not identified, for how many sizes, and what could not be fitted at all."""
    lost = [f"{name} {q}, {p}: {len(sizes)} sizes" for (name, q, p), sizes in _unidentified(fits).items()]
    found = f"Not identified: {'; '.join(lost)}" if lost else "Every parameter that was fitted is identified"
    return f"{found}. Not fitted: {'; '.join(notes)}" if notes else found


def rate_verdict(fits: SizeFits) -> str:
    """Whether the form determines a rate of every architecture."""
    who = sorted({name for name, _, parameter in _unidentified(fits) if parameter.startswith(("alpha", "beta"))})
    if not who:
        return "Every rate of the paper's form is identified in this table"
    return (
        f"The paper's step-time form cannot determine a bandwidth of the {' or '.join(who)}: any value, even a "
        "negative one, fits equally well"
    )


def negative_verdict(constants: pd.DataFrame) -> str:
    """For how many sizes each objective makes the constant negative."""
    if constants.empty:
        return "No times to first token in this table"
    below = [
        f"{(part['ms'] < 0).sum()} of {len(part)} sizes ({name}), {(part['relative'] < 0).sum()} with relative errors"
        for name, part in constants.groupby("architecture", sort=False)
    ]
    return f"The constant comes out negative for {'; '.join(below)}"


def objective_errors(timings: pd.DataFrame, fits: Mapping[str, SizeFits]) -> pd.DataFrame:
    """Relative errors of the time to first token under several objectives, a row per objective and size.

    Parameters
    ----------
    fits
        by the name of the objective.

    Returns
    -------
    DataFrame with `architecture`, `objective`, and the median absolute relative error of the times below (`short`) and
    above (`long`) the median time of the size.
    """
    rows = []
    for name in NAMES:
        for objective, sizes in fits.items():
            for (architecture, quantity, size), fit in sizes.items():
                if (architecture, quantity) != (name, "ttft"):
                    continue
                part = timings[(timings["architecture"] == name) & (timings["model_size"] == size)]
                part = part[part["ttft_s"].notna() & (part["prefill_length"] > 0)]
                predicted = prefill_flops(part) / fit.parameters["alpha_eff_flops_per_s"] + fit.parameters["eps_s"]
                error = predicted / part["ttft_s"] - 1
                short = (part["ttft_s"] < part["ttft_s"].median()).to_numpy()
                row = {"architecture": architecture_label(name), "objective": objective}
                row |= {"short": np.abs(error[short]).median(), "long": np.abs(error[~short]).median()}
                rows.append(row)
    return pd.DataFrame(rows, columns=["architecture", "objective", "short", "long"])


def objective_table(errors: pd.DataFrame) -> Html:
    """Medians of `objective_errors` over the sizes."""
    return show_table(
        errors.groupby(["architecture", "objective"], sort=False).median().reset_index(),
        caption="Median relative error of the time to first token, below and above the median time of a size; "
        "median over the sizes.",
        formats={"short": "{:.0%}", "long": "{:.0%}"},
        labels={"short": "shorter half", "long": "longer half"},
    )


def objective_verdict(errors: pd.DataFrame) -> str:
    """How far either objective errs on the shorter half of the times."""
    if errors.empty:
        return "No times to first token in this table"
    table = errors.pivot_table("short", "architecture", "objective", aggfunc="median", sort=False)
    both = [
        f"{name}: {percent(row['milliseconds'])} against {percent(row['relative'])}" for name, row in table.iterrows()
    ]
    return f"On the shorter half the fit in milliseconds errs by {'; '.join(both)} with relative errors"


def _with_interval(fit: InferenceFit, parameter: str) -> str:
    value, (low, high) = fit.parameters[parameter], fit.interval(parameter)
    scale = PARAMETER_UNITS[parameter][1]
    if not np.isfinite(value):
        return "not identified"
    text = f"{significant(value / scale)} [{significant(low / scale)}, {significant(high / scale)}]"
    return text if fit.identified[parameter] else f"{text}, not identified"


def _unidentified(fits: SizeFits) -> dict[tuple[str, str, str], list[str]]:
    """Sizes by label of the architecture, quantity and parameter that is not identified."""
    lost: dict[tuple[str, str, str], list[str]] = {}
    for (name, quantity, size), fit in fits.items():
        for parameter in fit.reasons:
            lost.setdefault((architecture_label(name), quantity, parameter), []).append(size)
    return lost
