"""Tables of the ledger's page."""

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

from companion.chapters.ch90.facts import section_verdict, used_tolerance
from companion.chapters.ch90.words import (
    SECTION_TITLES,
    entry_words,
    note_words,
    ours_text,
    published_text,
    quantity_words,
    small_text,
    source_words,
    tolerance_parts,
    value_text,
)
from companion.chapters.labels import label_of
from companion.ledger import DIFFERS, NOT_ATTEMPTED, REPRODUCED, LedgerRow, half_unit, summarize
from companion.plotting import Html, show_table
from companion.plotting.embed import shown

_HEADINGS = (
    ("number", ""),
    ("verdict", ""),
    ("published", "number"),
    ("ours", "number"),
    ("difference", "number"),
    ("tolerance", "number"),
)


def summary_table(rows: list[LedgerRow]) -> Html:
    """How many numbers of each section have which verdict, and of all sections together."""
    summary = summarize(rows).set_index("section")
    summary = summary.reindex([name for name in SECTION_TITLES if name in summary.index])
    table = pd.DataFrame(
        {
            "section": [SECTION_TITLES[name] for name in summary.index],
            "numbers": summary[[REPRODUCED, DIFFERS, NOT_ATTEMPTED]].sum(axis=1),
            "reproduced": summary[REPRODUCED],
            "independent": summary[REPRODUCED] - summary["not independent"],
            "differ": summary[DIFFERS],
            "not attempted": summary[NOT_ATTEMPTED],
        }
    )
    total = table.drop(columns="section").sum().to_dict()
    return show_table(
        pd.concat([table, pd.DataFrame([{"section": "all sections"} | total])]),
        name="ledger-summary",
        caption="Published numbers by section of the ledger and by verdict.",
        labels={"independent": "of these independent"},
    )


def differing_table(ledger: pd.DataFrame) -> Html:
    """All numbers that differ, under their entries."""
    differs = ledger[ledger["verdict"] == DIFFERS]
    return rows_table(differs, f"{len(differs)} numbers that differ")


def open_numbers_table(ledger: pd.DataFrame) -> Html | None:
    """What is not attempted yet; None if everything is."""
    left = open_table(ledger)
    return show_table(left, caption="Numbers that are not attempted yet.") if len(left) else None


def open_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """What is not attempted yet: `section`, `number` (in words), and how many `numbers` of that name."""
    rows = ledger[ledger["verdict"] == NOT_ATTEMPTED]
    rows = rows.assign(number=rows["quantity"].map(quantity_words))
    table = rows.groupby(["section", "number"], sort=False).size().rename("numbers").reset_index()
    table["section"] = table["section"].map(lambda name: SECTION_TITLES.get(name, name))
    return table


def sections_without_heading(ledger: pd.DataFrame) -> str | None:
    """Sections of the ledger that the page has no heading for, as a line of text; None if all have one."""
    unknown = sorted(set(ledger["section"]) - set(SECTION_TITLES))
    return f"Sections of the ledger without a heading on this page: {', '.join(unknown)}" if unknown else None


def closest_table(ledger: pd.DataFrame) -> Html:
    """Solution of an exercise: the reproduced number closest to its tolerance, and half a unit of its last digit."""
    used = used_tolerance(ledger)
    row = ledger.loc[used[used == used.max()].index].iloc[0]
    unit, difference = half_unit(row["published"], row["printed_digits"]), abs(row["difference"])
    lines = {
        "section": SECTION_TITLES.get(row["section"], row["section"]),
        "entry": entry_words(row["entry"]),
        "number": quantity_words(row["quantity"]),
        "difference": small_text(difference, 3),
        "tolerance": small_text(row["tolerance"], 3),
        "difference over tolerance": f"{used.max():.2g}",
        "half a unit of the last digit": small_text(unit, 3),
        "reproduced with this half unit alone": "yes" if difference <= unit else "no",
    }
    return show_table(
        pd.DataFrame({"what": list(lines), "value": list(lines.values())}),
        caption="The reproduced number that uses most of its tolerance.",
    )


def alterations_table(rows: Mapping[int, LedgerRow], unit: float) -> Html:
    """Solution of an exercise: the verdict on a number by how many units of its last digit it was changed."""
    table = [
        {"units": units, "tolerance": (row.tolerance or 0.0) / unit, "verdict": row.verdict}
        for units, row in rows.items()
    ]
    return show_table(
        pd.DataFrame(table),
        caption="A published number changed by some units of its last printed digit.",
        formats={"tolerance": "{:.1f}"},
        labels={"units": "changed by (units)", "tolerance": "tolerance (units)"},
    )


def independent_table(ledger: pd.DataFrame, section: str) -> Html:
    """Solution of an exercise: reproduced numbers of a section and independent ones among them, by architecture."""
    rows = ledger[(ledger["verdict"] == REPRODUCED) & (ledger["section"] == section)]
    groups = rows.groupby(rows["entry"].str.split(" ").str[0])["independent"]
    table = [
        {"architecture": label_of(str(name)), "reproduced": len(part), "of these independent": int(part.sum())}
        for name, part in groups
    ]
    return show_table(pd.DataFrame(table), caption=f"{SECTION_TITLES.get(section, section)}: reproduced numbers.")


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
    return Html(f"<p>{section_verdict(rows)}.</p>{table}")


def rows_table(rows: pd.DataFrame, label: str) -> Html:
    """Some rows of the ledger under their sections and entries, without a limit of height."""
    titles = rows["section"].map(lambda name: SECTION_TITLES.get(name, name))
    return Html(grouped_rows(rows.assign(title=titles + ": "), label) if len(rows) else "<p>None.</p>")


def grouped_rows(rows: pd.DataFrame, label: str, height: float | None = None) -> str:
    """A table with one heading per entry (what is meant, source, printed digits) and one row per number below it.

    A note that all numbers of an entry share is in the heading, any other in a row of its own. `label` is
    for readers who cannot see the table. A column `title`, if there is one, stands before the entries.
    """
    fixed = "position:sticky;top:0" if height is not None else ""
    head = "".join(f'<th scope="col" style="{fixed}" class="{kind}">{name}</th>' for name, kind in _HEADINGS)
    # wide as the view, not as the table: it stays in sight when the table scrolls sideways
    inner = 'style="position:sticky;left:0.75rem;max-width:min(38rem,75vw);white-space:normal;overflow-wrap:anywhere"'
    body = []
    for (title, entry, source, digits), group in rows.assign(title=rows.get("title", "")).groupby(
        ["title", "entry", "source", "printed_digits"], sort=False
    ):
        words = f"{title}{entry_words(str(entry))}" if entry else f"{title}all numbers"
        lines = [f"<div {inner}>{shown(words)}</div>"]
        shared = str(group["note"].iloc[0]) if len(set(group["note"])) == 1 else ""
        for text in filter(None, (source_words(str(source), str(digits)), note_words(shared))):
            lines.append(f"<div {inner}>{_small(shown(text))}</div>")
        # where rows are cards the heading takes both columns
        heading = f'<th scope="rowgroup" colspan="{len(_HEADINGS)}" style="grid-column:1/-1">{"".join(lines)}</th>'
        body.append(f"<tr>{heading}</tr>")
        for row in group.itertuples():
            body.append(_row(row))
            if row.note and not shared:
                note = f"<div {inner}>{_small(shown(note_words(str(row.note))))}</div>"
                body.append(f'<tr><td colspan="{len(_HEADINGS)}">{note}</td></tr>')
    box = f"max-height:{height:g}rem;overflow-y:auto" if height is not None else ""
    return (
        f'<div class="companion-table" style="{box}" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _row(row: Any) -> str:
    verdict = f'<span class="companion-verdict companion-verdict-{row.verdict.replace(" ", "-")}">{row.verdict}</span>'
    numbers = [value_text(row.published), "–", "–", "–"]
    if row.verdict != NOT_ATTEMPTED:
        parts = tolerance_parts(row.published, row.printed_digits, row.tolerance)
        within = parts if parts == "exact" else small_text(row.tolerance)
        if "+" in parts:  # one element: where rows are cards, it stays in the column of the values
            within = f"<span>{within}<br>{_small(parts.replace(' + ', ' +<br>'))}</span>"
        apart = value_text(row.difference) if parts == "exact" else small_text(row.difference)
        ours = ours_text(row.ours, row.tolerance)
        numbers = [published_text(row.published, ours), ours, apart, within]
        verdict += "" if row.independent else f"<br>{_small('not independent')}"
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    return f"<tr><td>{shown(quantity_words(row.quantity))}</td><td>{verdict}</td>{cells}</tr>"


def _small(markup: str) -> str:
    """Small print; the theme's own size for it is larger than the text of a table."""
    return f'<small style="font-size:0.92em;font-weight:normal">{markup}</small>'
