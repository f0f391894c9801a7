"""Chapter 10: where the mLSTM overtakes attention, what would change that, and tables of the exercises."""

from collections.abc import Mapping

import pandas as pd

from companion.accounting.inference import Precision
from companion.accounting.kernel_costs import cell_kernel_costs, keeps_states, pass_bytes
from companion.benchmarks.kernels.results import OURS
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.chapters.ch10 import record_figures
from companion.chapters.ch10.answer import Crossings, of_the_page
from companion.chapters.ch10.costs import state_blocks
from companion.chapters.ch10.shown import Shown
from companion.chapters.kernel_tables import TITLES, label, nothing
from companion.formatting import listed, percent, power_of_ten, significant
from companion.plotting import Html, show, show_table


def show_crossing(shown: Shown, crossings: Crossings) -> Html:
    """Time per token of attention and of the mLSTM over the context, for the heads of the page."""
    found = of_the_page(shown, crossings)
    if not found:
        return nothing("attention was not timed beside these heads")
    per_token = {}
    for part, each in found.items():
        seconds = each.table.drop(columns="context_length") / NUM_TOKENS
        per_token[TITLES[part]] = seconds.assign(context_length=each.table["context_length"])
    n_heads, _, d_hv = shown.heads
    return show(
        record_figures.crossing_panels(per_token, {TITLES[part]: each.measured for part, each in found.items()}),
        name="kernel-crossing",
        alt="Time per token over context: attention rises along its roofline, the mLSTM is flat well above its own; "
        "they cross.",
        caption=f"Time per token of the mLSTM with H × (d_qk, d_hv) = {shown.label} and of attention with "
        f"{n_heads * d_hv // 128} heads of 128, on {shown.timings.gpu}. The time of attention grows with the context, "
        "that of the mLSTM does not. Dashed: rooflines. Dotted: where the measured lines cross.",
    )


def show_crossings(crossings: Crossings) -> Html:
    """The context of the crossing for all timed heads: by FLOPs, by rooflines, as measured."""
    rows = [
        {"heads": label(n), "pass": TITLES[part]}
        | {"flops": each.by_flops, "roofline": each.by_roofline, "measured": each.text.replace("T = ", "")}
        for (n, part), each in crossings.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="kernel-crossings",
        caption="Context T in tokens from which on the mLSTM is faster than attention of the same width: by FLOPs "
        "alone, by rooflines, and as measured.",
        formats={"flops": "{:.0f}", "roofline": "{:.0f}"},
        labels={"heads": "H × (d_qk, d_hv)", "flops": "by FLOPs", "roofline": "by rooflines"},
    )


def crossing_facts(shown: Shown, crossings: Crossings) -> dict[str, object]:
    """What moves the context at which the mLSTM becomes faster than attention."""
    return {"c10_crossing": moved_verdict(shown, crossings)}


def moved_verdict(shown: Shown, crossings: Crossings) -> str:
    """A verdict: by how much memory, and how well each kernel is made, moves the crossing."""
    words = "Attention was not timed beside these heads"
    if found := of_the_page(shown, crossings).get("training"):
        factor = significant(found.by_roofline / found.by_flops, 2)
        words = f"Waiting for memory moves the crossing of {shown.label} in training by a factor of {factor}"
    attends = shown.at_context[
        (shown.at_context["computation"] == "attention") & (shown.at_context["part"] == "training")
    ]
    if not len(attends) or "training" not in shown.ours:
        return words
    theirs, own = attends["roofline_share"].max(), shown.ours["training"]["roofline_share"]
    return (
        f"{words}. Attention reaches {percent(theirs)} of its roofline at T = {shown.context}, and our kernels "
        f"{percent(own)} of theirs. This difference between kernels moves the crossing by a factor of about "
        f"{significant(theirs / own, 2)}"
    )


def change_facts(shown: Shown, scans: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """How chunk length, batch and dtype would change the conclusion."""
    by_chunk = {name: scan.groupby("chunk_size")["seconds"].sum() for name, scan in scans.items()}
    own = by_chunk.get(shown.label, next(iter(by_chunk.values())))
    four, mixed = Precision(bytes_per_activation=4.0, bytes_per_state=4.0), Precision(bytes_per_state=4.0)
    kept = keeps_states(shown.cell)  # in bfloat16; in float32 the kernels compute them again
    usual = pass_bytes(cell_kernel_costs(shown.cell, keep_states=kept), "forward+backward")
    more = {
        name: pass_bytes(cell_kernel_costs(shown.cell, keep_states=keep, precision=precision), "forward+backward")
        / usual
        for name, keep, precision in (("float32", False, four), ("mixed", kept, mixed))
    }
    return {
        "c10_chunk_64": significant(own[64] / own.min(), 2),
        "c10_chunk_best": own.idxmin(),
        "c10_if_batch": batch_verdict(shown),
    } | {f"c10_bytes_{name}": significant(value, 2) for name, value in more.items()}


def batch_verdict(shown: Shown) -> str:
    """A verdict: whether a batch of one fills the GPU in the backward pass, and what one long sequence costs."""
    cell, count = shown.cell, shown.peaks.num_multiprocessors
    wide = state_blocks(shown, "state_gradients")
    few = wide | state_blocks(shown, "state_gradients", chains=cell.n_heads, multiprocessors=count)

    def number(blocks: dict[str, int]) -> int:
        return -(-cell.d_qk // blocks["BLOCK_K"]) * -(-cell.d_hv // blocks["BLOCK_V"]) * cell.n_heads

    words = (
        f"In the backward pass the gradients of the states of one sequence form {number(wide)} blocks of "
        f"{wide['BLOCK_K']} × {wide['BLOCK_V']}, and the GPU has {count} multiprocessors"
    )
    less = (
        f". For a batch of one, the kernels cut them into {number(few)} blocks of {few['BLOCK_K']} × {few['BLOCK_V']}"
    )
    words += less if few != wide else ". A batch of one is cut into the same blocks"
    rows = shown.here[(shown.here["implementation"] == OURS) & (shown.here["part"] == "training")]
    flat = rows.set_index("context_length")["seconds_median"].sort_index()
    if len(flat) < 2:
        return words
    longer = significant(flat.iloc[-1] / flat.iloc[0], 3)
    return (
        f"{words}. In training, one sequence of {flat.index[-1]:,.0f} tokens takes {longer} times as long as the same "
        f"tokens in sequences of {flat.index[0]:.0f}"
    )


# ---- exercises -----------------------------------------------------------------------------------


def show_active(rows: list[dict[str, float]]) -> Html:
    """Which tokens have a normalizer with a gradient, by mean of the input gate: `gate`, `active`, `error`."""
    return show_table(
        pd.DataFrame(rows),
        name="kernel-active",
        caption="Tokens whose normalizer has a gradient, and the error of dk without that gradient, by the mean of ĩ "
        "(f̃ around 3).",
        formats={"active": percent, "error": lambda v: power_of_ten(v, 1)},
        labels={"gate": "mean of ĩ", "active": "tokens with |ñᵀq| > 1", "error": "error of dk without it"},
    )


def show_balances(rows: list[dict[str, object]]) -> Html:
    """Chunk lengths by hand (`balance`) beside those of the scan, by heads and bandwidth."""
    return show_table(
        pd.DataFrame(rows),
        name="kernel-balances",
        caption="Chunk length L in tokens at which FLOPs balance the bytes of states, and the best power of two of the "
        "scan, forward and with backward. More bandwidth makes shorter chunks best.",
        formats={"balance": "{:.0f}"},
        labels={"heads": "H × (d_qk, d_hv)", "balance": "L by hand", "forward": "L of the scan, forward"}
        | {"forward+backward": "L of the scan, with backward"},
    )


def show_drift(shown: Shown, drift: pd.DataFrame) -> Html:
    """Errors of many steps by dtype of the state, and what the records say that 16 bits gain."""
    graphs = shown.steps[shown.steps["launch"] == "graph"]
    both = graphs.pivot_table("seconds_median", "batch_size", "implementation")
    names = ("companion step", "companion step, bfloat16 state")
    ratios = both[names[0]] / both[names[1]] if set(names) <= set(both) else pd.Series(dtype=float)
    gain = listed([f"{ratio:.2f} at B = {batch}" for batch, ratio in ratios.items()])
    return show_table(
        drift,
        name="kernel-drift",
        caption="Error of h after a number of steps, by dtype of the state (f̃ around 5). In the records, a step with "
        f"the state in float32 takes this many times as long as in bfloat16: {gain or 'not timed'}.",
        formats={str(c): (lambda v: power_of_ten(v, 1)) for c in drift if c != "num_tokens"},
        labels={"num_tokens": "steps"},
    )
