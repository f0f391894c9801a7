"""What the page of the ledger shows (`notebooks/90_ledger.md`): its tables, its figure and its facts."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.formatting import percent
from companion.ledger import DIFFERS, NOT_ATTEMPTED, REPRODUCED, SPREAD_FACTOR, LedgerRow, summarize
from companion.plotting import Html, show, show_table
from companion.plotting.style import INK, subplots

#: Heading of every section of the ledger on the page, in its order.
SECTION_TITLES = {
    "isoflop_power_laws": "IsoFLOP power laws",
    "isoflop_optima": "IsoFLOP optima",
    "parametric_fits": "Parametric fits",
    "overtraining_slopes": "Over-training slopes",
    "inference_fits": "Inference fits",
    "inference_model_sizes": "Sizes of the timed models",
    "inference_measurement_counts": "Counts of inference measurements",
    "run_table_statistics": "Statistics of the run table",
    "compute_optimal_table_8192": "Compute-optimal table",
}

_HEADINGS = (
    ("number", ""),
    ("verdict", ""),
    ("published", "number"),
    ("ours", "number"),
    ("difference", "number"),
    ("tolerance", "number"),
    ("reason of the tolerance", ""),
)
_MARKERS = {REPRODUCED: ("o", "#0173b2"), DIFFERS: ("X", "#de8f05")}
#: Differences below and above these multiples of the tolerance are drawn there: many are exactly zero.
_FLOOR, _CEILING = 1e-4, 1e2


def summary_table(rows: list[LedgerRow]) -> Html:
    """How many numbers of each section have which verdict."""
    summary = summarize(rows)
    return show_table(
        summary.assign(section=[SECTION_TITLES.get(name, name) for name in summary["section"]]),
        caption="Numbers by verdict. Dependent: reproduced, but not independent. Open: not attempted.",
        labels={"not independent": "(dependent)", "not attempted": "open"},
    )


def tolerance_figure(ledger: pd.DataFrame) -> Html:
    """Every difference over its tolerance."""
    return show(
        tolerance_use(ledger),
        name="ledger-tolerance",
        alt="For every number that was computed, its difference over its tolerance, one line of marks per section.",
        caption="Difference over tolerance. Left of the dashed line: reproduced. The left edge holds all "
        "differences that are smaller still, zero among them; the right edge all that are larger.",
    )


def ledger_facts(ledger: pd.DataFrame) -> dict[str, str]:
    """Counts of the whole ledger, how much of their tolerance reproduced numbers use, and what is open."""
    done = ledger[ledger["verdict"] != NOT_ATTEMPTED]
    differs, used = done[done["verdict"] == DIFFERS], used_tolerance(ledger)
    open_numbers = len(ledger) - len(done)
    return {
        "c90_counts": counts_text(ledger),
        "c90_independent": f"{int(done.loc[done['verdict'] == REPRODUCED, 'independent'].sum())}",
        "c90_differs": differs_verdict(len(differs), int((differs["note"] != "").sum())),
        "c90_factor": f"{SPREAD_FACTOR:g}",
        "c90_use": f"{used.median():.2g}",
        "c90_use_most": f"{used.max():.2g}",
        "c90_open": open_verdict(open_numbers, len(ledger)),
    }


def differs_verdict(differing: int, explained: int) -> str:
    """How many of the numbers that differ have an explanation, as a sentence."""
    return f"Of the {differing} that differ, {explained} have an explanation." if differing else "None differs."


def open_verdict(open_numbers: int, numbers: int) -> str:
    """How many numbers are not attempted."""
    if not open_numbers:
        return "Nothing: every number of the published file has been computed again"
    return f"{open_numbers} numbers, {percent(open_numbers / numbers)} of the ledger, are not attempted"


def used_tolerance(ledger: pd.DataFrame) -> pd.Series:
    """|difference| / tolerance of every reproduced number, with the index of its row."""
    reproduced = ledger[ledger["verdict"] == REPRODUCED]
    return (reproduced["difference"].abs() / reproduced["tolerance"]).astype(float)


def differing_table(ledger: pd.DataFrame) -> Html:
    """All numbers that differ, under their entries."""
    differs = ledger[ledger["verdict"] == DIFFERS]
    return rows_table(differs, f"{len(differs)} numbers that differ.")


def open_numbers_table(ledger: pd.DataFrame) -> Html | None:
    """What is not attempted yet; None if everything is."""
    left = open_table(ledger)
    return show_table(left, caption="Numbers that are not attempted yet.") if len(left) else None


def sections_without_heading(ledger: pd.DataFrame) -> str:
    """Sections of the ledger that the page has no heading for, as a line of text."""
    unknown = sorted(set(ledger["section"]) - set(SECTION_TITLES))
    return f"Sections of the ledger without a heading on this page: {', '.join(unknown) or 'none'}"


def closest_text(row: pd.Series, share: float, digit: float) -> str:
    """Solution of an exercise: the number closest to its tolerance, and whether its last digit alone would do.

    Parameters
    ----------
    row
        of the ledger.
    share
        of its tolerance that its difference uses.
    digit
        half a unit of its last printed digit.
    """
    difference = abs(row["difference"])
    return "\n".join(
        [
            f"{row['section']}, {row['entry']}",
            f"{row['quantity']} uses {share:.2g} of its tolerance.",
            f"Difference {difference:.1e}, half a unit of the last digit {digit:.1e}:",
            "yes." if difference <= digit else "no, the rounding of the table is needed too.",
        ]
    )


def alterations_text(rows: Mapping[int, LedgerRow], unit: float) -> str:
    """Solution of an exercise: the verdict on a number by how many units of its last digit it was changed."""
    return "\n".join(
        f"{units} units of the last digit: {row.verdict} (tolerance {(row.tolerance or 0.0) / unit:.1f} units)"
        for units, row in rows.items()
    )


def independent_text(ledger: pd.DataFrame, section: str) -> str:
    """Solution of an exercise: independent ones among the reproduced numbers of a section, a line per architecture."""
    rows = ledger[(ledger["verdict"] == REPRODUCED) & (ledger["section"] == section)]
    groups = rows.groupby(rows["entry"].str.split(" ").str[0])["independent"]
    return "\n".join(f"{name}: {int(part.sum())} of {len(part)}" for name, part in groups)


def section_table(ledger: pd.DataFrame, section: str, height: float = 32.0) -> Html:
    """All rows of one section under their entries, in a box that scrolls; the headings stay in view.

    Parameters
    ----------
    ledger
        from `companion.ledger.entries.to_frame`.
    section
        a value of its column `section`.
    height
        of the box at most, in rem (a row takes about 2).
    """
    rows = ledger[ledger["section"] == section]
    if rows.empty:
        return Html(f"<p>The file of published numbers has no section {html.escape(section)}.</p>")
    table = grouped_rows(rows, SECTION_TITLES.get(section, section), height)
    return Html(f"<p>{counts_text(ledger, section)}.</p>{table}")


def rows_table(rows: pd.DataFrame, label: str) -> Html:
    """Some rows of the ledger under their sections and entries, without a limit of height."""
    titles = rows["section"].map(lambda name: SECTION_TITLES.get(name, name))
    return Html(grouped_rows(rows.assign(entry=titles + ": " + rows["entry"]), label) if len(rows) else "<p>None.</p>")


def grouped_rows(rows: pd.DataFrame, label: str, height: float | None = None) -> str:
    """A table with one heading per entry (what is meant, source, printed digits) and one row per number below it.

    A note that all numbers of an entry share is in the heading, any other in a row of its own. `label` is
    for readers who cannot see the table.
    """
    fixed = "position:sticky;top:0" if height is not None else ""
    head = "".join(f'<th scope="col" style="{fixed}" class="{kind}">{name}</th>' for name, kind in _HEADINGS)
    # wide as the view, not as the table: it stays in sight when the table scrolls sideways
    inner = 'style="position:sticky;left:0.75rem;max-width:min(38rem,75vw);white-space:normal;overflow-wrap:anywhere"'
    body = []
    for key, group in rows.groupby(["entry", "source", "printed_digits"], sort=False):
        entry, *where = (html.escape(str(text)) for text in key)
        lines = [f"<div {inner}>{entry or 'all'}</div>"]
        shared = group["note"].iloc[0] if len(set(group["note"])) == 1 else ""
        for text in filter(None, ("; ".join(filter(None, where)), html.escape(shared))):
            lines.append(f'<div {inner}><small style="font-weight:normal">{text}</small></div>')
        body.append(f'<tr><th scope="rowgroup" colspan="{len(_HEADINGS)}">{"".join(lines)}</th></tr>')
        for row in group.itertuples():
            body.append(_row(row))
            if row.note and not shared:
                note = f"<div {inner}><small>{html.escape(str(row.note))}</small></div>"
                body.append(f'<tr><td colspan="{len(_HEADINGS)}">{note}</td></tr>')
    box = f"max-height:{height:g}rem;overflow-y:auto" if height is not None else ""
    return (
        f'<div class="companion-table" style="{box}" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _row(row: Any) -> str:
    verdict = f'<span class="companion-verdict companion-verdict-{row.verdict.replace(" ", "-")}">{row.verdict}</span>'
    numbers = [f"{row.published:.10g}", "–", "–", "–"]
    if row.verdict != NOT_ATTEMPTED:
        numbers[1:] = [ours_text(row.ours, row.tolerance), f"{row.difference:.1e}", f"{row.tolerance:.1e}"]
        verdict += "" if row.independent else "<br><small>not independent</small>"
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    reason = html.escape(str(row.tolerance_reason))
    return f"<tr><td>{html.escape(row.quantity)}</td><td>{verdict}</td>{cells}<td>{reason}</td></tr>"


def ours_text(value: float, tolerance: float) -> str:
    """A value with one digit more than its tolerance makes sense of, 3 to 12 significant digits."""
    digits = 12
    if value and tolerance > 0:
        digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(tolerance)) + 2
    return f"{value:.{min(max(digits, 3), 12)}g}"


def counts_text(ledger: pd.DataFrame, section: str | None = None) -> str:
    """How many numbers are reproduced, how many of these not independently, and differ, in words.

    Those not attempted are counted where there are some.
    """
    rows = ledger if section is None else ledger[ledger["section"] == section]
    number = rows["verdict"].value_counts()
    reproduced = f"{number.get(REPRODUCED, 0)} {REPRODUCED}"
    if dependent := int(((rows["verdict"] == REPRODUCED) & ~rows["independent"].astype(bool)).sum()):
        reproduced += f" ({dependent} of them from losses rebuilt with published fits)"
    parts = [f"{len(rows)} published numbers: {reproduced}", f"{number.get(DIFFERS, 0)} differ"]
    if open_ones := number.get(NOT_ATTEMPTED, 0):
        parts.append(f"{open_ones} {NOT_ATTEMPTED}")
    return ", ".join(parts)


def open_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """What is not attempted yet: `section`, `quantity`, and how many `numbers` of that name."""
    rows = ledger[ledger["verdict"] == NOT_ATTEMPTED]
    table = rows.groupby(["section", "quantity"], sort=False).size().rename("numbers").reset_index()
    table["section"] = table["section"].map(lambda name: SECTION_TITLES.get(name, name))
    return table


def tolerance_use(ledger: pd.DataFrame, sections: Sequence[str] = tuple(SECTION_TITLES)) -> Figure:
    """|difference| over tolerance for every number that was computed, one line per section; 1 is the limit."""
    done = ledger[ledger["verdict"] != NOT_ATTEMPTED]
    shown = [section for section in sections if section in set(done["section"])]
    figure, [ax] = subplots(height=0.9 + 0.34 * max(len(shown), 1))
    for verdict, (marker, color) in _MARKERS.items():
        rows = done[done["verdict"] == verdict]
        use = (rows["difference"].astype(float).abs() / rows["tolerance"].astype(float)).clip(_FLOOR, _CEILING)
        place = rows["section"].map({section: i for i, section in enumerate(shown)}).to_numpy(dtype=float)
        # spread within the line by order, so that equal values do not hide each other
        offset = 0.5 * ((np.arange(len(rows)) * 0.618) % 1 - 0.5)
        ax.plot(use, place + offset, marker, color=color, markersize=4, label=verdict, alpha=0.7, markeredgewidth=0)
    ax.axvline(1.0, color=INK, linewidth=1.0, linestyle="--")
    ax.set(xscale="log", xlabel="|difference| / tolerance", yticks=range(len(shown)))
    ax.set_yticklabels([SECTION_TITLES.get(section, section) for section in shown])
    ax.invert_yaxis()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
