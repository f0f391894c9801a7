"""Makes the table of loss floors that `Source.loss_floor` reads. Needs torch.

    python -m companion.study.corpus.entropy --seeds 0 1 2 --out data/source_entropy.csv

measures the floor of the default source at four context lengths. Rows of other sources and context lengths that are in
the file stay.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from companion.errors import InputError
from companion.paths import check_target, write_whole
from companion.study.corpus.floor import COLUMNS, METHOD, measure_floor, read_floors
from companion.study.corpus.grammar import Grammar

#: What makes two rows the same measurement.
_KEY = ["fingerprint", "context_length"]


def main(arguments: list[str] | None = None) -> int:
    """Measure floors and write their table; exit status."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.corpus.entropy", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--vocab-size", type=int, default=Grammar().vocab_size, metavar="V")
    parser.add_argument("--class-bits", type=int, default=Grammar().class_bits, metavar="B")
    parser.add_argument("--context-lengths", type=int, nargs="+", default=[64, 256, 1024, 4096], metavar="T")
    parser.add_argument("--documents", type=int, default=2048, metavar="NUMBER")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    given = parser.parse_args(arguments)
    try:
        check_target(given.out)
        before = _before(given.out)
        rows = []
        for seed in given.seeds:
            grammar = Grammar(seed=seed, vocab_size=given.vocab_size, class_bits=given.class_bits)
            for length in given.context_lengths:
                floor = measure_floor(grammar, length, given.documents, device=given.device, progress=True)
                shown = f"{floor.loss:.6f}", f"{floor.standard_error:.6f}"
                counts = floor.documents, floor.positions
                sizes = given.vocab_size, given.class_bits, seed, length
                rows.append((*sizes, *shown, *counts, grammar.fingerprint, METHOD))
        found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(str)
        replaced = before.set_index(_KEY).index.isin(found.set_index(_KEY).index)
        whole = pd.concat([before[~replaced], found])
        write_whole(given.out, whole.to_csv(index=False, lineterminator="\n"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _before(path: Path) -> pd.DataFrame:
    """What a table holds already, as text, so that its numbers stay as they are."""
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    read_floors(path)
    return pd.read_csv(path, dtype=str)


if __name__ == "__main__":
    sys.exit(main())
