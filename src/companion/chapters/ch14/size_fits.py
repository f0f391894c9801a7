"""Chapter 14: the paper's form for single sizes, fitted to the authors' timings and to ours."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.chapters.ch14.labels import QUANTITY_NAMES, whose_peaks
from companion.chapters.ch14.measured import Measured
from companion.chapters.timed_models import MODEL_LABELS
from companion.errors import InputError
from companion.formatting import percent
from companion.hardware import Hardware
from companion.inference.one_size import InferenceFit, fit_inference
from companion.inference.timings import Quantity
from companion.plotting import Html, show_table

#: Fits by whose timings, model, quantity and size.
SizeFits = Mapping[tuple[str, str, Quantity, str], InferenceFit]
#: The rate of each quantity, how a table writes it, and the peak that bounds it.
RATES: dict[Quantity, tuple[str, str, str]] = {
    "ttft": ("alpha_eff_flops_per_s", "α", "peak_flops_per_s"),
    "step_time": ("beta_eff_bytes_per_s", "β", "peak_bytes_per_s"),
}
#: Models and quantities with a rate that timings can determine: the bandwidth of a state is not (chapter 8).
_FITTED: tuple[tuple[str, Quantity], ...] = (("transformer", "ttft"), ("xlstm", "ttft"), ("transformer", "step_time"))


def fit_sizes(measured: Measured, authors: pd.DataFrame, *, num_resamples: int = 200) -> SizeFits:
    """The paper's form for every size that we timed: of the authors' timings (`theirs`) and of ours (`ours`)."""
    found: dict[tuple[str, str, Quantity, str], InferenceFit] = {}
    for name, quantity in _FITTED:
        if name not in measured.models:
            continue
        tables = {"theirs": authors, "ours": measured.timings(name)}
        for size in measured.sizes:
            for whose, table in tables.items():
                try:
                    found[whose, name, quantity, size] = fit_inference(
                        table, name, size, quantity, num_resamples=num_resamples
                    )
                except InputError:
                    continue  # not timed: a dash in the table
    return found


def share_text(fit: InferenceFit | None, quantity: Quantity, peaks: Hardware | None) -> str:
    """The rate of a fit as a share of a peak, with its interval: `41 [40, 43] %`; a dash where there is none."""
    name, _, peak = RATES[quantity]
    if fit is None or peaks is None or not fit.identified[name]:
        return "–"
    value, *ends = np.array([fit.parameters[name], *fit.interval(name)]) / getattr(peaks, peak)
    if np.isnan(ends).any():
        return _percent(value)
    low, high = ("∞" if np.isinf(end) else _percent(end).removesuffix(" %") for end in ends)
    return f"{_percent(value).removesuffix(' %')} [{low}, {high}] %"


def _percent(share: float) -> str:
    """Two digits, from 100 % on all of them."""
    return percent(share, decimals=0) if share >= 1 else percent(share)


def show_size_fits(found: SizeFits, measured: Measured, their_peaks: Hardware) -> Html:
    """Rates of the paper's form, the authors' beside ours, as shares of peaks."""
    sources, rows = whose_peaks(measured.peaks, measured.datasheet, their_peaks), []
    for name, quantity in _FITTED:
        for size in measured.sizes:
            theirs, ours = (found.get((whose, name, quantity, size)) for whose in ("theirs", "ours"))
            row = {
                "model": MODEL_LABELS[name],
                "rate": f"{RATES[quantity][1]}, {QUANTITY_NAMES[quantity]}",
                "size": size,
            }
            row |= {"authors": share_text(theirs, quantity, their_peaks)}
            row |= {"ours, of stated peaks": share_text(ours, quantity, measured.datasheet)}
            row |= {"ours, of measured peaks": share_text(ours, quantity, measured.peaks)}
            if theirs is not None or ours is not None:
                rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="measured-size-fits",
        caption="Effective rates of the paper's form with 95 % intervals: α of the first token in percent of the peak "
        f"FLOP/s, β of the step (B ≥ 8) in percent of the peak bandwidth. {sources}"
        "–: the timings do not determine it.",
    )


def size_fit_facts(found: SizeFits, measured: Measured, their_peaks: Hardware, size: str) -> dict[str, object]:
    """Rates at one size for the text; our shares are of the stated peaks where there are any."""
    peaks = measured.datasheet or measured.peaks
    return {
        f"c14_one_{name}_{quantity}_{whose}": share_text(found.get((whose, name, quantity, size)), quantity, device)
        for name, quantity in _FITTED
        for whose, device in (("theirs", their_peaks), ("ours", peaks))
    }
