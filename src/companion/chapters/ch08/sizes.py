"""Chapter 8: the timings, and the paper's form fitted to each size alone: what such a fit can and cannot determine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch08.common import NAMES, PARAMETER_UNITS, note_table
from companion.formatting import listed, number_word, percent, power_of_ten, share_in_words, significant
from companion.inference.one_size import InferenceFit, prefill_flops
from companion.inference.timings import COLUMNS
from companion.plotting import Html
from companion.plotting.embed import show_table
from companion.plotting.style import architecture_label

#: Fits of `companion.inference.terms.fit_all_sizes`: by architecture, quantity and size.
SizeFits = Mapping[tuple[str, str, str], InferenceFit]

_TIMES = {"ttft": "times to first token", "step_time": "step times"}
_HALVES = ("short", "long")
_OBJECTIVES = {"milliseconds": "fit in ms", "relative": "relative errors"}
_MEMORY = "memory_allocated_bytes_gen1"


def quantities_of(timings: pd.DataFrame) -> list[str]:
    """The quantities that a table has a column of: `ttft`, `step_time`."""
    return [quantity for quantity, column in COLUMNS.items() if column in timings]


def timing_facts(timings: pd.DataFrame) -> dict[str, str]:
    """How many timings there are and over which range, and what the memory allocated says about the weights."""
    parts = [f"{timings[COLUMNS[quantity]].notna().sum():,} {_TIMES[quantity]}" for quantity in quantities_of(timings)]
    return {
        "c8_num_combinations": f"{len(timings):,}",
        "c8_num_timings": listed(parts),
        "c8_num_sizes": number_word(timings["model_size"].nunique()),
        "c8_batches": _ends(timings["batch_size"]),
        "c8_prompts": _ends(timings["prefill_length"]),
        "c8_generated": _ends(timings["generation_length"]),
        "c8_memory": memory_verdict(timings),
    }


def memory_verdict(timings: pd.DataFrame) -> str:
    """In how many bytes the weights were held, from the least memory allocated for every size."""
    if _MEMORY not in timings or "num_params" not in timings:
        return "This table does not say how much memory was allocated; we count weights with 2 bytes"
    sizes = [timings["architecture"], timings["num_params"]]
    held = pd.to_numeric(timings[_MEMORY]).groupby(sizes).min().reset_index()
    above = (held[_MEMORY] - 2 * held["num_params"]) / 1e9
    return (
        f"For every size the least memory allocated is 2 bytes per parameter plus {above.min():.2f} to "
        f"{above.max():.2f} GB: the weights were held in 2 bytes"
    )


def first_token_table(fits: SizeFits, millisecond_fits: SizeFits) -> Html:
    """Parameters of the time to first token by two objectives, a row per architecture and size."""
    caption = "Time to first token, size by size: effective rate α and constant ε from relative errors, with 95 % "
    caption += "intervals; the constant from (Huber-transformed) squares of milliseconds, and how many of the times "
    constants = first_token_constants(fits, millisecond_fits)
    if constants.empty:
        return note_table("no times to first token to fit in this table", f"{caption}that fit predicts below 0.")
    return show_table(
        constants.drop(columns="relative"),
        name="inference-first-token",
        caption=f"{caption}that fit predicts below 0. rms of ln(predicted/measured), relative errors: "
        f"{_errors(fits, 'ttft')}.",
        formats={"ms": "{:.2f}"},
        labels={"alpha": "α (TFLOP/s)", "eps": "ε, relative (ms)", "ms": "ε, milliseconds (ms)"}
        | {"impossible": "times below 0"},
    )


def first_token_constants(fits: SizeFits, millisecond_fits: SizeFits) -> pd.DataFrame:
    """The constant of the time to first token from two objectives.

    Returns
    -------
    DataFrame with `architecture`, `size`; `alpha` and `eps` (texts with intervals, relative errors), `ms` and
    `relative` (the constant by either objective, ms), `impossible`: how many of the timings the fit in milliseconds
    predicts below 0.
    """
    rows = []
    for (name, quantity, size), fit in millisecond_fits.items():
        if quantity == "ttft" and (relative := fits.get((name, quantity, size))) is not None:
            row: dict[str, Any] = {"architecture": architecture_label(name), "size": size}
            row |= {"alpha": _with_interval(relative, "alpha_eff_flops_per_s")}
            row |= {"eps": _with_interval(relative, "eps_s"), "ms": 1e3 * fit.parameters["eps_s"]}
            row |= {"impossible": f"{fit.num_impossible} of {len(fit.log_residuals)}"}
            rows.append(row | {"relative": 1e3 * relative.parameters["eps_s"]})
    columns = ["architecture", "size", "alpha", "eps", "ms", "impossible", "relative"]
    return pd.DataFrame(rows, columns=columns)


def step_table(fits: SizeFits) -> Html:
    """Parameters of the step time with their intervals, a row per architecture and size."""
    rows = []
    for (name, quantity, size), fit in fits.items():
        if quantity == "step_time":
            row = {"architecture": architecture_label(name), "size": size}
            row |= {PARAMETER_UNITS[p][0]: _with_interval(fit, p) for p in fit.parameters}
            rows.append(row | {"singular": fit.singular_values[-1] / fit.singular_values[0]})
    caption = (
        "Step time, size by size: effective bandwidth β, constant ε and constant per sequence, batches of at least 8."
    )
    if not rows:
        return note_table("no step times to fit in this table", caption)
    return show_table(
        pd.DataFrame(rows),
        name="inference-steps",
        caption=f"{caption} Where the smallest singular value is 0, two columns of the design are one. "
        f"rms of ln(predicted/measured): {_errors(fits, 'step_time')}.",
        formats={"singular": lambda v: f"{v:.2g}" if v > 1e-12 else "0"},
        labels={"singular": "smallest / largest singular value"},
    )


def bandwidth_table(free: pd.DataFrame, model_size: str) -> Html:
    """Fits with the bandwidth fixed at several values (`companion.inference.terms.fixed_bandwidths`)."""
    return show_table(
        free,
        name="inference-bandwidths",
        caption=f"Step times of the xLSTM {model_size} with the bandwidth fixed: the same fit every time, a negative "
        "bandwidth included.",
        formats={"beta_eff_bytes_per_s": lambda v: f"{v / 1e12:g}", "eps_s": lambda v: f"{1e3 * v:.3f}"}
        | {"eps_bp_s": lambda v: f"{1e6 * v:.1f}", "rms_log_error": "{:.6f}"},
        labels={"beta_eff_bytes_per_s": "β fixed at (TB/s)", "eps_s": "ε (ms)", "eps_bp_s": "ε per sequence (µs)"}
        | {"rms_log_error": "rms of ln(predicted / measured)"},
    )


def size_facts(fits: SizeFits, millisecond_fits: SizeFits, notes: Sequence[str]) -> dict[str, str]:
    """Verdicts on what the fits of single sizes determine.

    Parameters
    ----------
    notes
        what could not be fitted, in words.
    """
    ratios = [fit.singular_values[-1] / fit.singular_values[0] for (_, q, _), fit in fits.items() if q == "ttft"]
    return {
        "c8_singular": f"{min(ratios, default=np.nan):.2f}",
        "c8_notes": identification_verdict(fits, notes),
        "c8_negative": negative_verdict(first_token_constants(fits, millisecond_fits)),
        "c8_unidentified": rate_verdict(fits),
    }


def identification_verdict(fits: SizeFits, notes: Sequence[str]) -> str:
    """Which parameters are not determined, for how many sizes, and what could not be fitted at all."""
    lost: dict[tuple[str, str, int], list[str]] = {}
    for (name, quantity, parameter), sizes in _unidentified(fits).items():
        lost.setdefault((name, quantity, len(sizes)), []).append(PARAMETER_UNITS[parameter][0].partition(" (")[0])
    found = "Every parameter that was fitted is determined"
    if lost:
        parts = []
        for (name, quantity, number), parameters in lost.items():
            every = sum((architecture_label(n), q) == (name, quantity) for n, q, _ in fits)
            who = f"no {name} size" if number == every else f"{share_in_words(number, every)} {name} sizes"
            verb = "do" if number == every else "do not"
            parts.append(f"for {who} {verb} the {_TIMES[quantity]} determine {listed(parameters)}")
        found = "; ".join(parts)
    return (found[0].upper() + found[1:]) + (f". Not fitted: {'; '.join(notes)}" if notes else "")


def rate_verdict(fits: SizeFits) -> str:
    """Whether the form determines a rate of every architecture."""
    who = sorted({name for name, _, parameter in _unidentified(fits) if parameter.startswith(("alpha", "beta"))})
    if not who:
        return "The paper's form determines every rate in this table"
    return (
        f"The formula that the paper fits to the times cannot determine a bandwidth of the {' or '.join(who)}: any "
        "value, even a negative one, fits equally well"
    )


def negative_verdict(constants: pd.DataFrame) -> str:
    """For how many sizes each objective makes the constant negative."""
    if constants.empty:
        return "This table has no times to first token"

    def below(column: str) -> str:
        parts, none = [], []
        for name, part in constants.groupby("architecture", sort=False):
            number, every = int((part[column] < 0).sum()), len(part)
            if number:
                parts.append(f"{share_in_words(number, every)} {name} sizes")
            else:
                none.append(f"no {name} size")
        if not parts:
            return "never negative"
        return f"negative for {listed(parts)}" + (f" (and for {listed(none)})" if none else "")

    return f"Fitted in milliseconds, ε is {below('ms')}; fitted to relative errors, it is {below('relative')}"


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
    """Medians over the sizes of `objective_errors`: what each objective errs by on either half of the times."""
    caption = (
        "Median error of the time to first token, on the shorter and on the longer half of the times of each size, by "
        "what the fit makes least."
    )
    if errors.empty:
        return note_table("no times to first token to fit in this table", caption)
    medians = _medians(errors)
    rows = [
        {"architecture": name} | {f"{half}: {objective}": percent(medians.loc[(name, objective), half])
         for half in _HALVES for objective in _OBJECTIVES}
        for name in dict.fromkeys(errors["architecture"])
    ]  # fmt: skip
    return show_table(
        pd.DataFrame(rows),
        name="inference-objectives",
        caption=caption,
        labels={
            f"{half}: {objective}": f"{'shorter' if half == 'short' else 'longer'} half, {words}"
            for half in _HALVES
            for objective, words in _OBJECTIVES.items()
        },
    )


def objective_facts(errors: pd.DataFrame) -> dict[str, str]:
    """Where relative errors lower the error on the shorter half of the times most, in words."""
    if errors.empty:
        return {"c8_short_gain": "there is nothing to compare"}
    short = _medians(errors)["short"]
    ends = {name: [short[name, objective] for objective in _OBJECTIVES] for name in errors["architecture"].unique()}
    who = max(ends, key=lambda name: ends[name][0] / ends[name][1])
    before, after = map(percent, ends[who])
    return {"c8_short_gain": f"the {who}'s error falls from {before} to {after}"}


def _medians(errors: pd.DataFrame) -> pd.DataFrame:
    return errors.groupby(["architecture", "objective"])[list(_HALVES)].median()


def same_misfit(free: pd.DataFrame) -> str:
    """By how much the misfit changes over the fixed bandwidths of `bandwidth_table`."""
    return power_of_ten(float(np.ptp(free["rms_log_error"])), 1)


def _ends(values: pd.Series) -> str:
    return " to ".join(dict.fromkeys(f"{end:,.0f}" for end in (values.min(), values.max())))


def _errors(fits: SizeFits, quantity: str) -> str:
    """Least and largest rms by architecture."""
    parts = []
    for name in dict.fromkeys(n for n, q, _ in fits if q == quantity):
        found = [fit.rms_log_error for (n, q, _), fit in fits.items() if (n, q) == (name, quantity)]
        parts.append(f"{min(found):.3f} to {max(found):.3f} ({architecture_label(name)})")
    return listed(parts)


def _with_interval(fit: InferenceFit, parameter: str) -> str:
    value, (low, high) = fit.parameters[parameter], fit.interval(parameter)
    scale = PARAMETER_UNITS[parameter][1]
    if not np.isfinite(value):
        return "not determined"
    text = f"{significant(value / scale)} [{significant(low / scale)}, {significant(high / scale)}]"
    return text if fit.identified[parameter] else f"{text}, not determined"


def _unidentified(fits: SizeFits) -> dict[tuple[str, str, str], list[str]]:
    """Sizes by label of the architecture, quantity and parameter that is not identified."""
    lost: dict[tuple[str, str, str], list[str]] = {}
    for (name, quantity, size), fit in fits.items():
        for parameter in fit.reasons:
            lost.setdefault((architecture_label(name), quantity, parameter), []).append(size)
    return lost
