"""Chapter 16: a laboratory that is played on the page: sensible runs, commands, changed ledgers."""

import io
import json
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

from companion.numeric import Array
from companion.study.laboratory import Answer, Ask, Rules
from companion.study.laboratory.chain import Chain, Entry, next_entry
from companion.study.laboratory.journal import LEDGER, PREDICTION

#: Size and sequences per step at which this chapter states a learning rate.
RATE_SIZE, RATE_BATCH = 1e8, 8
#: Exponents of the best learning rate in size and batch: a rule of thumb, which the hidden world does not keep to.
OVER_SIZE, OVER_BATCH = -0.25, 0.5
#: Longest warm-up, in steps, and the share of a run that it may take.
WARM_UP, WARM_UP_SHARE = 1000, 4
#: Characters of a printed line that a page shows without scrolling.
WIDTH = 76
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
#: At least three spaces in a row: between columns.
_GAP = re.compile(r" {3,}")
_LOSS = re.compile(r'("val_loss":)([0-9.]+)')


def sensible_ask(
    rules: Rules, architecture: str, num_params: float, num_tokens: float, rate: float, seed: int = 0
) -> Ask:
    """A run with a rate stated at 10⁸ parameters and 8 sequences, moved to its own size and batch by a rule of thumb.

    The batch is the smallest power of two that the limit on steps allows; the warm-up takes a quarter of the run, at
    most 1,000 steps.
    """
    (low, high), most_steps = rules.limits["batch_size_seqs"], 0.99 * rules.limits["train_steps"][1]
    needed = num_tokens / (most_steps * rules.context_length)
    batch = int(min(high, max(low, 2 ** math.ceil(math.log2(max(needed, 1))))))
    step = batch * rules.context_length
    # rounded down: a run of the target compute must not cost more
    steps = max(1, math.floor(num_tokens / step + 1e-9))
    moved = rate * (num_params / RATE_SIZE) ** OVER_SIZE * (batch / RATE_BATCH) ** OVER_BATCH
    return Ask(
        architecture=architecture,
        num_params=round(num_params),
        num_tokens=steps * step,
        learning_rate=moved,
        batch_size_seqs=batch,
        warmup_steps=min(WARM_UP, max(1, steps // WARM_UP_SHARE)),
        seed=seed,
    )


def stated_rate(ask: Ask) -> float:
    """The rate of a run as `sensible_ask` states it."""
    moved = (ask.num_params / RATE_SIZE) ** OVER_SIZE * (ask.batch_size_seqs / RATE_BATCH) ** OVER_BATCH
    return float(ask.learning_rate / moved)


def best_setting(answers: Sequence[Answer]) -> tuple[str, float]:
    """The architecture of the lowest loss and its best stated rate: the bottom of a parabola through its sweep.

    A parabola that opens downwards, or fewer than three finished runs, leave the best rate that was tried.
    """
    losses, rates = losses_and_rates(answers)
    found: dict[str, tuple[float, float]] = {}
    for name, loss in losses.items():
        place = int(np.argmin(loss))
        found[name] = float(loss[place]), float(rates[name][place])
        if len(loss) >= 3:
            second, first, _ = np.polyfit(np.log(rates[name]), loss, 2)
            if second > 0:
                bottom = np.clip(-first / (2 * second), np.log(rates[name].min()), np.log(rates[name].max()))
                found[name] = float(loss[place]), float(np.exp(bottom))
    best = min(found, key=lambda name: found[name][0])
    return best, found[best][1]


def losses_and_rates(answers: Sequence[Answer]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Losses and stated rates of the finished runs, by architecture."""
    done = [answer for answer in answers if answer.outcome.val_loss is not None]
    names = dict.fromkeys(answer.ask.architecture for answer in done)
    losses = {name: np.array([a.outcome.val_loss for a in done if a.ask.architecture == name]) for name in names}
    rates = {name: np.array([stated_rate(a.ask) for a in done if a.ask.architecture == name]) for name in names}
    return losses, rates


def masked(text: str) -> str:
    """Printed text without its hashes of 64 digits: a nonce makes them new each time that a page is built.

    >>> masked("commitment: " + "0f" * 32)
    'commitment: (64 hex digits)'
    """
    return _HASH.sub("(64 hex digits)", text)


def folded(text: str, width: int = WIDTH) -> str:
    """Printed text with long lines broken between words; lines of tables stay as they are.

    >>> print(folded("one two three\\nfour   five   six   seven", 9))
    one two
      three
    four   five   six   seven
    """
    lines = []
    for line in text.split("\n"):
        table = len(_GAP.findall(line.strip())) >= 2
        parts = [line] if table else textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False)
        lines.append("\n".join(parts))
    return "\n".join(lines)


@contextmanager
def printed() -> Iterator[None]:
    """What is printed inside, errors too, as one `masked` and `folded` text on standard output at the end."""
    with redirect_stdout(io.StringIO()) as text, redirect_stderr(text):
        yield
    print(folded(masked(text.getvalue())), end="")


def predict_command(folder: str, ask: Ask, loss: float, low: float, high: float) -> str:
    """The command that commits a run for the target with its predicted loss and interval, in nats per token."""
    return (
        f"companion lab predict {folder} --loss {loss:.4f} --low {low:.4f} --high {high:.4f} "
        f"--architecture {ask.architecture} --num-params {ask.num_params} --learning-rate {ask.learning_rate:.3g} "
        f"--batch {ask.batch_size_seqs} --warmup-steps {ask.warmup_steps}"
    )


def edit_loss(folder: Path, line: int, factor: float) -> None:
    """Multiply the loss in a line of a ledger, as one would in an editor: the hashes stay as they are."""
    path = folder / LEDGER
    lines = path.read_text("ascii").splitlines(keepends=True)
    lines[line - 1] = _LOSS.sub(lambda found: f"{found[1]}{factor * float(found[2])!r}", lines[line - 1])
    path.write_text("".join(lines), "ascii")


def edit_prediction(folder: Path, **values: float) -> None:
    """Change numbers of an opened prediction, such as `high`, after it was committed."""
    path = folder / PREDICTION
    opened = json.loads(path.read_text("utf-8"))
    opened["prediction"] |= values
    path.write_text(json.dumps(opened), "utf-8")


def rewrite_ledger(folder: Path, factor: float) -> None:
    """Multiply every loss of a ledger and compute all hashes anew: a forgery that the hashes cannot show."""
    chain = Chain(folder / LEDGER)
    entries, _ = chain.read()
    forged: list[Entry] = []
    for entry in entries:
        body = json.loads(json.dumps(entry.body))
        if entry.kind == "ask" and body["outcome"]["val_loss"] is not None:
            body["outcome"]["val_loss"] *= factor
        forged.append(next_entry(forged, entry.kind, body))
    chain.create(forged[0])
    chain.append(forged[1:], forged[:1])
