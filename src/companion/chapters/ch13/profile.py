"""Where the time of a pass goes, by component, beside the least time of the accounting's roofline."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch13 import figures
from companion.chapters.ch13.records import Suite
from companion.chapters.timed_models import MODEL_LABELS
from companion.formatting import listed, percent, significant
from companion.plotting import Html, show, show_table

#: Passes of a profile, and what a page calls them.
PARTS = {"step": "one generated token", "prefill_layer": "one layer of a prefill", "training": "a training step"}
#: Components as a page shows them: several of the records' make one.
GROUPS = {
    "attention": "attention or mLSTM",
    "mlstm": "attention or mLSTM",
    "qkv": "projections",
    "out": "projections",
    "heads": "rotary, gates",
    "output_gate": "rotary, gates",
    "ffn_up": "feed-forward",
    "ffn_activation": "feed-forward",
    "ffn_down": "feed-forward",
    "norms": "norms",
    "embedding": "embedding, logits",
    "unembedding": "embedding, logits",
    "sampling": "embedding, logits",
    "loss": "loss",
    "optimizer": "optimizer",
    "gaps": "outside kernels",
}
ORDER = tuple(dict.fromkeys(GROUPS.values()))
#: The groups inside a sentence; the first and the third depend on the model.
IN_WORDS = {
    "projections": "the projections",
    "feed-forward": "the feed-forward layers",
    "norms": "the norms",
    "embedding, logits": "embedding and logits",
    "loss": "the loss",
    "optimizer": "the optimizer",
    "outside kernels": "the time outside of kernels",
}
WHOLE = "whole"


@dataclass(frozen=True)
class Profile:
    """Profiles of passes on one GPU.

    Attributes
    ----------
    suite
        of `companion.chapters.ch13.records.PROFILE`.
    """

    suite: Suite

    @cached_property
    def table(self) -> pd.DataFrame:
        """Groups of components: `part`, `model`, `group`, `seconds`, `least` (seconds by the roofline), `lost`.

        `lost` is the difference of the two, which is below 0 where a kernel moves less than the accounting counts.
        """
        rows = self.suite.results.query("component != @WHOLE")
        rows = rows.assign(group=rows["component"].map(GROUPS))
        sums = rows.groupby(["part", "model", "group"], sort=False)[["seconds", "roofline_seconds"]].sum().reset_index()
        sums = sums.rename(columns={"roofline_seconds": "least"})
        return sums.assign(lost=sums["seconds"] - sums["least"])

    @cached_property
    def passes(self) -> pd.DataFrame:
        """One row per pass and model: `size`, `context_length`, `batch_size`, `seconds`, `least`, `largest`, `worst`.

        `largest` and `worst` are the groups with the most time and with the most time above the least.
        """
        rows = []
        for (part, model), sums in self.table.groupby(["part", "model"], sort=False):
            same = (self.suite.results["part"] == part) & (self.suite.results["model"] == model)
            cell = self.suite.results[same].iloc[0]
            named = sums.set_index("group")
            whole = {"seconds": named["seconds"].sum(), "least": named["least"].sum()}
            row: dict[str, Any] = {"part": part, "model": model, **whole}
            row |= {name: cell[name] for name in ("size", "context_length", "batch_size")}
            row |= {"largest": named["seconds"].idxmax(), "largest_seconds": named["seconds"].max()}
            rows.append(row | {"worst": named["lost"].idxmax(), "lost": named["lost"].max()})
        found = pd.DataFrame(rows)
        return found.assign(share=found["least"] / found["seconds"])

    @property
    def groups(self) -> list[str]:
        """Groups of components that have a time, in the order of a pass."""
        return [group for group in ORDER if (self.table["group"] == group).any()]

    def parts(self) -> list[str]:
        """Passes that were profiled, in the order of `PARTS`."""
        return [part for part in PARTS if (self.passes["part"] == part).any()]

    def row(self, part: str, model: str) -> dict[str, Any]:
        """One row of `passes`.

        Raises
        ------
        NotApplicable
            if this pass of this model was not profiled.
        """
        rows = self.passes[(self.passes["part"] == part) & (self.passes["model"] == model)].to_dict("records")
        need(rows, f"{PARTS[part]} of the {MODEL_LABELS[model]} was not profiled")
        return {str(key): value for key, value in rows[0].items()}


def profile_figure(profile: Profile) -> Html:
    """Milliseconds of every component, a panel for every pass."""
    parts = profile.parts()
    described = []
    for part in parts:
        row = profile.passes[profile.passes["part"] == part].iloc[0]
        described.append(f"{PARTS[part]} ({str(row['size']).upper()}, {setting_of(row)})")
    return show(
        figures.components(profile.table, {part: PARTS[part] for part in parts}, profile.groups, MODEL_LABELS),
        name="model-profile",
        alt="Bars of the time of each component, Transformer and xLSTM, one panel for each pass.",
        caption=f"Time of every component on {profile.suite.device}: {'; '.join(described)}. The line across a "
        "bar is the least time by the roofline of the accounting.",
    )


def setting_of(row: Any) -> str:
    """Context and batch of a pass in words."""
    sequences = "1 sequence" if row["batch_size"] == 1 else f"{row['batch_size']:g} sequences"
    return f"{row['context_length']:g} tokens, {sequences}"


def profile_table(profile: Profile, name: str = "model-passes") -> Html:
    """Time and least time of every pass, with the component that takes most and the one that loses most."""
    rows = [
        {
            "pass": PARTS[row["part"]],
            "model": MODEL_LABELS[row["model"]],
            "time": significant(1e3 * row["seconds"]),
            "least": significant(1e3 * row["least"]),
            "share": percent(row["share"]),
            "largest": f"{row['largest']}, {percent(row['largest_seconds'] / row['seconds'])}",
            "worst": f"{row['worst']}, {percent(row['lost'] / row['seconds'])}",
        }
        for row in profile.passes.to_dict("records")
    ]
    return show_table(
        pd.DataFrame(rows),
        name=name,
        caption=f"Time of a pass on {profile.suite.device} and its least time by the roofline. Loses most: the "
        "component whose time is the most above its least time. Shares are of the whole time.",
        labels={"time": "time (ms)", "least": "least (ms)", "share": "least / time", "largest": "takes most"}
        | {"worst": "loses most"},
    )


def profile_facts(profile: Profile) -> dict[str, object]:
    """A sentence about every pass, and one about where most time is lost."""
    facts: dict[str, object] = {"c13_profile_gpu": profile.suite.device}
    for part, name in PARTS.items():
        rows: Any = profile.passes[profile.passes["part"] == part].to_dict("records")
        facts[f"c13_{part}_pass"] = pass_verdict(name, rows)
    first = max(profile.passes.to_dict("records"), key=lambda row: row["lost"] / row["seconds"])
    where = (
        f"{in_words(first['worst'], first['model'])} in {PARTS[first['part']]} of the {MODEL_LABELS[first['model']]}"
    )
    facts["c13_worst"] = f"{where}, {percent(first['lost'] / first['seconds'])} of its time"
    return facts | {"c13_outside": outside_verdict(profile)}


def outside_verdict(profile: Profile) -> str:
    """A verdict: how much of a pass lies between its kernels."""
    outside = profile.table[profile.table["group"] == GROUPS["gaps"]].set_index(["part", "model"])["seconds"]
    share = (outside / profile.passes.set_index(["part", "model"])["seconds"]).max()
    if not share > 0:
        return "No pass loses time between its kernels: in a CUDA graph the next one is ready when the last one ends"
    return f"Up to {percent(share)} of a pass lies outside of kernels, after the end of one and before the next"


def pass_verdict(name: str, rows: list[dict[str, Any]]) -> str:
    """What a pass takes in every model, how much of it the roofline explains, and what takes and loses most."""
    if not rows:
        return f"{name[0].upper()}{name[1:]} was not profiled"
    labels = [MODEL_LABELS[row["model"]] for row in rows]
    times = listed(
        [f"{significant(1e3 * row['seconds'])} ms ({label})" for row, label in zip(rows, labels, strict=True)]
    )
    shares = listed([percent(row["share"]) for row in rows])
    most = merged([(in_words(row["largest"], row["model"]), row["largest_seconds"] / row["seconds"]) for row in rows])
    lost = merged([(in_words(row["worst"], row["model"]), row["lost"] / row["seconds"]) for row in rows])
    return (
        f"{str(rows[0]['size']).upper()}, {setting_of(rows[0])}: {times}. The roofline explains {shares} of that. "
        f"Most time goes to {most}; most is lost in {lost}"
    )


def in_words(group: str, model: str) -> str:
    """A group of components inside a sentence about one model."""
    attention = model in ("transformer", "grouped")
    if group == GROUPS["attention"]:
        return "attention" if attention else "the mLSTM" if model == "xlstm" else "attention and the mLSTM"
    if group == GROUPS["heads"]:
        return "the rotary embedding" if attention else "the gates"
    return IN_WORDS[group]


def merged(pairs: list[tuple[str, float]]) -> str:
    """Components with their shares as a list; one that comes twice is named once: the norms (12 % and 14 %)."""
    by_name: dict[str, list[str]] = {}
    for name, share in pairs:
        by_name.setdefault(name, []).append(percent(share))
    return listed([f"{name} ({listed(shares)})" for name, shares in by_name.items()])
