"""Chapter 10: the answer of the page in two sentences and a small table."""

from collections.abc import Mapping

import pandas as pd

from companion.benchmarks.kernels.results import Crossing
from companion.chapters.ch10.shown import Shown
from companion.chapters.kernel_tables import TITLES
from companion.formatting import percent, significant
from companion.plotting import Html, show_table

#: By heads and part.
Crossings = Mapping[tuple[tuple[int, int, int], str], Crossing]


def of_the_page(shown: Shown, crossings: Crossings) -> dict[str, Crossing]:
    """The crossings of the heads of the page, by part, as far as attention was timed beside them."""
    return {part: x for (n, part), x in crossings.items() if tuple(n) == shown.heads and len(x.table)}


def answer_facts(shown: Shown, crossings: Crossings) -> dict[str, object]:
    """The two sentences of the answer, and the heads that they are about."""
    return {
        "c10_answer_crossing": crossing_verdict(shown, crossings),
        "c10_answer_speed": speed_verdict(shown),
        "c10_shown": shown.label,
    }


def crossing_verdict(shown: Shown, crossings: Crossings) -> str:
    """A verdict: from which context on the mLSTM trains faster than attention; by rooflines if that was not timed."""
    found = of_the_page(shown, crossings).get("training")
    if found is not None:
        subject = f"On {shown.timings.gpu} the mLSTM cell trains faster than attention of the same width"
        return f"{subject} {where_faster(found)}"
    guesses = [x for (n, part), x in crossings.items() if tuple(n) == shown.heads and part == "training"]
    if not guesses:
        return "These heads were not timed"
    return (
        "By rooflines the mLSTM cell trains faster than attention of the same width from a context of "
        f"{guesses[0].by_roofline:.0f} tokens on; attention was not timed here"
    )


def where_faster(each: Crossing) -> str:
    """The contexts at which our kernels are faster, as the end of a sentence."""
    contexts = each.table["context_length"]
    if each.text.startswith("T"):
        return f"from a context of {each.measured:.0f} tokens on"
    if each.text.startswith("below"):
        return f"at every context that was timed, from {contexts.min():.0f} tokens on"
    return f"at no context up to {contexts.max():.0f} tokens"


def speed_verdict(shown: Shown) -> str:
    """A verdict: which share of the roofline our kernels reach in training, and how much slower published ones are."""
    if "training" not in shown.ours:
        return f"Our kernels were not timed at {shown.label}, T = {shown.context}"
    words = f"Our kernels run at {percent(shown.ours['training']['roofline_share'])} of the speed that the GPU allows"
    ratios = [ratios["training"] for ratios in shown.published.values() if "training" in ratios]
    return words + (f"; the fastest published ones take {significant(min(ratios), 2)} times as long" if ratios else "")


def show_summary(shown: Shown, crossings: Crossings) -> Html:
    """Times, share of the roofline and the crossing, forward and in training."""
    rows: dict[str, dict[str, str]] = {}
    for part, row in shown.ours.items():
        rows.setdefault("our time (ms)", {})[part] = significant(1e3 * row["seconds_median"])
        rows.setdefault("share of the roofline that we reach", {})[part] = percent(row["roofline_share"])
        if ratios := [ratios[part] for ratios in shown.published.values() if part in ratios]:
            rows.setdefault("fastest published time / ours", {})[part] = significant(min(ratios), 2)
    for part, each in of_the_page(shown, crossings).items():
        rows.setdefault("measured crossing with attention (tokens)", {})[part] = each.text.replace("T = ", "")
        rows.setdefault("crossing by rooflines (tokens)", {})[part] = f"{each.by_roofline:.0f}"
        rows.setdefault("crossing by FLOPs alone (tokens)", {})[part] = f"{each.by_flops:.0f}"
    if not rows:
        return shown.untimed()
    table = pd.DataFrame.from_dict(rows, orient="index").rename(columns=TITLES).fillna("–")
    return show_table(
        table.rename_axis("quantity").reset_index(),
        name="kernel-summary",
        caption=f"Speed and crossing of one layer. H × (d_qk, d_hv) = {shown.label}, T = {shown.context} for the "
        f"times, bf16, {shown.timings.gpu}. The crossing is the context from which on the mLSTM is faster "
        "than attention.",
    )
