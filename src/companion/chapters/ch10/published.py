"""Chapter 10: the paper's effective prefill rates beside those of the mLSTM's kernels."""

import pandas as pd

from companion.architectures.mlstm import mlstm_core_flops
from companion.benchmarks.kernels.results import OURS
from companion.chapters.ch10.shown import Shown
from companion.chapters.kernel_tables import short_name
from companion.formatting import percent, share_in_words, significant
from companion.inference.published_count import XLSTM_COUNT
from companion.ledger import REPRODUCED, load_published
from companion.plotting import Html, show_table

#: Rows of the ledger that the check is about: its section, and the quantity.
SECTION, QUANTITY = "inference_fits", "alpha_eff_flops_per_s"


def published_rates(ledger: pd.DataFrame) -> pd.DataFrame:
    """The published rates of xLSTM prefills from rows of the ledger, slowest first.

    Parameters
    ----------
    ledger
        of `companion.ledger.to_frame`, with the section `inference_fits`.

    Returns
    -------
    DataFrame with `what`, `flops_per_s` and `verdict` of the ledger.
    """
    rows = ledger[ledger["entry"].str.startswith("xlstm") & (ledger["quantity"] == QUANTITY)].sort_values("published")
    size = rows["entry"].str.split(" ").str[1].str.upper()
    return pd.DataFrame({"what": "model, " + size, "flops_per_s": rows["published"], "verdict": rows["verdict"]})


def cell_rates(shown: Shown) -> pd.DataFrame:
    """Rates of the cell alone, forward, at the context of the page: the authors' FLOPs over our measured seconds.

    Returns
    -------
    DataFrame with `what` and `flops_per_s`: ours and those of `mlstm_kernels`, as far as they were timed.
    """
    cell = shown.cell
    flops = cell.batch_size * mlstm_core_flops(cell.n_heads, cell.d_qk, cell.d_hv, cell.context_length, XLSTM_COUNT)
    rows = []
    for name in (OURS, *shown.published):
        if (row := shown.row_of(name, "forward")) is not None:
            rows.append({"what": f"cell alone, {short_name(name)}", "flops_per_s": flops / row["seconds_median"]})
    return pd.DataFrame(rows, columns=["what", "flops_per_s"]).sort_values("flops_per_s")


def show_published(shown: Shown, ledger: pd.DataFrame) -> Html:
    """Rates of the cell, of whole published models, and of a plain matrix product, slowest first."""
    product = pd.DataFrame({"what": ["matrix product"], "flops_per_s": [shown.peaks.peak_flops_per_s]})
    table = pd.concat([cell_rates(shown), published_rates(ledger), product]).sort_values("flops_per_s")
    source = table["verdict"].map(lambda verdict: "paper" if isinstance(verdict, str) else shown.timings.gpu)
    peak = load_published()[SECTION][0]["peak_assumed_flops_per_s"]
    return show_table(
        table.assign(source=source, share=table["flops_per_s"] / peak, ledger=table["verdict"].fillna("–"))[
            ["what", "source", "flops_per_s", "share", "ledger"]
        ],
        name="kernel-published",
        caption="Forward rates, slowest first: the mLSTM cell alone and a plain matrix product as measured here, and "
        f"whole xLSTM models as published. Shares are of {peak / 1e12:.0f} TFLOP/s, the peak that the authors assume.",
        formats={"flops_per_s": lambda rate: f"{rate / 1e12:.0f}", "share": percent},
        labels={"flops_per_s": "TFLOP/s", "share": "share of the peak", "ledger": "in the ledger"},
    )


def published_facts(shown: Shown, ledger: pd.DataFrame) -> dict[str, object]:
    """How many published rates the ledger reproduces, and where they lie between the cell and a matrix product."""
    rates, cells = published_rates(ledger), cell_rates(shown)
    return {
        "c10_rates": ledger_verdict(rates["verdict"], ledger.loc[rates.index, "independent"]),
        "c10_between": between_verdict(shown, rates["flops_per_s"], cells),
    }


def ledger_verdict(verdicts: pd.Series, independent: pd.Series) -> str:
    """A verdict: how many rates the ledger reproduces, and how many of these do not depend on the published number."""
    reproduced = verdicts == REPRODUCED
    words = f"The ledger reproduces {share_in_words(int(reproduced.sum()), len(verdicts))} published rates"
    if not reproduced.any():
        return words
    alone = int((reproduced & independent.astype(bool)).sum())
    who = "all of them" if alone == reproduced.sum() else f"{alone} of them"
    return f"{words}, {who} from data that do not depend on the published numbers"


def between_verdict(shown: Shown, rates: pd.Series, cells: pd.DataFrame) -> str:
    """A verdict: whether the published rates lie between the slowest published cell's and a matrix product's."""
    theirs = cells[~cells["what"].str.contains("ours")]
    if not len(theirs):
        return "No published kernel was timed on this GPU, so the comparison has no lower end"
    low, high = theirs["flops_per_s"].max(), shown.peaks.peak_flops_per_s
    inside = share_in_words(int(rates.between(low, high).sum()), len(rates))
    return (
        f"{inside.capitalize()} published rates lie between the {significant(low / 1e12, 2)} TFLOP/s of the fastest "
        f"published kernel and the {high / 1e12:.0f} TFLOP/s of a matrix product"
    )
