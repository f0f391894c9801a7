"""Which losses of the IsoFLOP chapter are no independent record, in words."""

from collections.abc import Mapping

import pandas as pd

from companion.chapters.applicability import Selection
from companion.chapters.ch03.tables import rebuilt_runs
from companion.chapters.labels import label_of, the
from companion.fitting.isoflop.select import contexts_of, isoflop_runs
from companion.formatting import listed, power_of_ten


def rebuilt_verdict(selection: Selection, tables: Mapping[str, pd.DataFrame]) -> str:
    """Which runs have losses that were rebuilt with published fits as constraints, in one or two sentences."""
    who = []
    for name, found in rebuilt_runs(tables).items():
        parts = [f"{rebuilt} of {runs} at {power_of_ten(budget)}" for budget, (rebuilt, runs) in found.items()]
        who += [f"of {the(name)} {listed(parts)} FLOP"] if parts else []
    if not who:
        return "This table marks no loss as rebuilt from a published fit"
    return (
        f"Some losses are not the authors' own records: {listed(who)} were read off figures of the paper and refined "
        "with its printed parabolas imposed. An asterisk marks such budgets; what rests on them is no independent test "
        "of the published fits" + _rebuilt_elsewhere(selection)
    )


def _rebuilt_elsewhere(selection: Selection) -> str:
    """The same at other context lengths, as a sentence of its own, or an empty text."""
    runs, parts = selection.runs, []
    for length in contexts_of(runs, selection.architectures):
        for name in selection.architectures if length != selection.context_length else ():
            found = rebuilt_runs({name: isoflop_runs(runs, name, length)})[name].values()
            if found:
                of = len(isoflop_runs(runs, name, length))
                parts.append(f"{sum(n for n, _ in found)} of {of} at T = {length} ({label_of(name)})")
    return f". At other contexts it is {listed(parts)}" if parts else ""
