"""Makes the table of loss floors that `Source.loss_floor` reads. Needs torch.

    python -m companion.study.corpus.entropy --seeds 0 1 2 --out data/source_entropy.csv

measures the floor of the default source at four context lengths.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from companion.errors import InputError
from companion.paths import check_target, write_whole
from companion.study.corpus.floor import COLUMNS, METHOD, measure_floor
from companion.study.corpus.grammar import Grammar


def main(arguments: list[str] | None = None) -> int:
    """Measure floors and write their table; exit status."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.corpus.entropy", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--vocab-size", type=int, default=Grammar().vocab_size, metavar="V")
    parser.add_argument("--context-lengths", type=int, nargs="+", default=[64, 256, 1024, 4096], metavar="T")
    parser.add_argument("--documents", type=int, default=2048, metavar="NUMBER")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    given = parser.parse_args(arguments)
    try:
        check_target(given.out)
        rows = []
        for seed in given.seeds:
            grammar = Grammar(seed=seed, vocab_size=given.vocab_size)
            for length in given.context_lengths:
                floor = measure_floor(grammar, length, given.documents, device=given.device, progress=True)
                shown = f"{floor.loss:.6f}", f"{floor.standard_error:.6f}"
                counts = floor.documents, floor.positions
                rows.append((given.vocab_size, seed, length, *shown, *counts, grammar.fingerprint, METHOD))
        write_whole(given.out, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
