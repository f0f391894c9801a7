"""What the page of the ledger says: counts, verdicts, and how much of their tolerance the reproduced numbers use."""

import pandas as pd

from companion.formatting import number_word, percent
from companion.ledger import DIFFERS, NOT_ATTEMPTED, REPRODUCED, SPREAD_FACTOR


def ledger_facts(ledger: pd.DataFrame) -> dict[str, str]:
    """Counts of the whole ledger, how much of their tolerance reproduced numbers use, and what is open."""
    done = ledger[ledger["verdict"] != NOT_ATTEMPTED]
    again, differs = done[done["verdict"] == REPRODUCED], done[done["verdict"] == DIFFERS]
    used, open_numbers = used_tolerance(ledger), len(ledger) - len(done)
    return {
        "c90_counts": counts_text(ledger),
        "c90_numbers": f"{len(ledger)}",
        "c90_reproduced": f"{len(again)}",
        "c90_independent": f"{int(again['independent'].sum())}",
        "c90_differs": differs_verdict(len(differs), int((differs["note"] != "").sum()), open_numbers),
        "c90_factor": f"{SPREAD_FACTOR:g}",
        "c90_use": f"{used.median():.2g}",
        "c90_use_most": f"{used.max():.2g}",
        "c90_open": open_verdict(open_numbers, len(ledger)),
    }


def differs_verdict(differing: int, explained: int, open_numbers: int = 0) -> str:
    """How many numbers differ, for how many of them the reason is known, and how many are not attempted."""
    if not differing:
        found = "None differs"
    else:
        verb = "differs" if differing == 1 else "differ"
        known = "for all of them" if explained == differing else f"for {number_word(explained, 'none')} of them"
        found = f"{number_word(differing).capitalize()} {verb}; {known} the reason is known"
    return found + (f", and {number_word(open_numbers)} are not attempted" if open_numbers else "")


def open_verdict(open_numbers: int, numbers: int) -> str:
    """How many numbers are not attempted."""
    if not open_numbers:
        return "No number is left: every number of the published file has been computed again"
    return f"{open_numbers} numbers, {percent(open_numbers / numbers)} of the ledger, are not attempted"


def used_tolerance(ledger: pd.DataFrame) -> pd.Series:
    """|difference| / tolerance of every reproduced number, with the index of its row."""
    reproduced = ledger[ledger["verdict"] == REPRODUCED]
    return (reproduced["difference"].abs() / reproduced["tolerance"]).astype(float)


def counts_text(ledger: pd.DataFrame) -> str:
    """How many numbers are reproduced, how many of these not independently, and differ, in words.

    Those not attempted are counted where there are some.
    """
    number = ledger["verdict"].value_counts()
    reproduced = f"{number.get(REPRODUCED, 0)} {REPRODUCED}"
    if dependent := dependent_of(ledger):
        reproduced += f" ({dependent} of them from losses rebuilt with published fits)"
    parts = [f"{len(ledger)} published numbers: {reproduced}", f"{number.get(DIFFERS, 0)} differ"]
    if open_ones := number.get(NOT_ATTEMPTED, 0):
        parts.append(f"{open_ones} {NOT_ATTEMPTED}")
    return ", ".join(parts)


def section_verdict(rows: pd.DataFrame) -> str:
    """The counts of some rows as a sentence: `All 60 numbers are reproduced, 16 of them not independently`."""
    number = rows["verdict"].value_counts()
    again, differing, left = (int(number.get(verdict, 0)) for verdict in (REPRODUCED, DIFFERS, NOT_ATTEMPTED))
    found = f"All {again} numbers are reproduced" if again == len(rows) else f"{again} of {len(rows)} are reproduced"
    if dependent := dependent_of(rows):
        found += f", {dependent} of them not independently"
    found += f"; {differing} {'differs' if differing == 1 else 'differ'}" if differing else ""
    return found + (f"; {left} {'is' if left == 1 else 'are'} not attempted" if left else "")


def dependent_of(rows: pd.DataFrame) -> int:
    """How many reproduced numbers are not independent of the published ones."""
    return int(((rows["verdict"] == REPRODUCED) & ~rows["independent"].astype(bool)).sum())
