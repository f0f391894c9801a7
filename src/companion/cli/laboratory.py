"""`companion lab`: a laboratory with a hidden law: make it, ask for runs, predict, reveal, score."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.laboratory_class import add_class
from companion.cli.laboratory_options import add_rules, add_run_options, add_training, asks_of, one_ask, rules_of
from companion.cli.laboratory_output import (
    duration,
    floor_fields,
    floor_of,
    in_words,
    left,
    lines,
    nearest_sizes,
    print_floor,
    print_rules,
    print_score,
    shown,
    state_with_notes,
    summary,
)
from companion.cli.options import add_json, positive
from companion.cli.output import say, say_next
from companion.errors import InputError
from companion.formatting import count as letters
from companion.formatting import level_text, percent, plural, power_of_ten
from companion.paths import check_target, write_whole
from companion.study.laboratory.folder import new_laboratory, open_laboratory
from companion.study.laboratory.predictions import Prediction, target_tokens


def add_lab(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register the commands of `companion lab`; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    summary = "a laboratory to practice in: a hidden law, a budget, a committed prediction, a score"
    group = subparsers.add_parser("lab", help=summary, description=summary[0].upper() + summary[1:] + ".")
    to = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_new(command, to)
    _add_ask(command, to)
    _add_runs(command, to)
    _add_predict(command, to)
    for name, run, text in (
        ("show", show, "the rules, the runs so far, and what is left"),
        ("reveal", reveal, "run the target of a committed prediction, free of charge"),
        ("score", show_score, "what a revealed prediction was worth, in parts"),
    ):
        parser = command(name, run, text, f"  companion lab {name} my_lab\n  companion lab {name} my_lab --json", to=to)
        _add_folder(parser)
        add_json(parser)
    add_class(command, to)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lab", type=Path, metavar="LAB", help="folder of the laboratory")


def _add_new(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "new",
        new,
        "make a laboratory: a folder with rules, a ledger and a hidden world",
        "  companion lab new my_lab\n"
        "  companion lab new my_lab --budget 1e19 --target 1e20 --law misfit\n"
        "  companion lab new my_lab --gpu-hours 20 --world lesson-3   (the same world for everyone who names it)\n"
        "  companion lab new my_lab --backend training\n"
        "  companion lab new my_lab --backend training --device cpu --corpus source:vocab_size=256 \\\n"
        "      --context-length 64 --sizes 0.1m,0.2m,0.3m --budget 1e11 --target 1e12\n"
        "\n"
        "The hidden world is in sealed.json. Nothing keeps you from reading it but the wish to learn. With --backend\n"
        "training every ask is a real run of a small model here; you keep to the ledger on your honor.",
        to=to,
    )
    parser.add_argument("lab", type=Path, metavar="LAB", help="folder to make")
    parser.add_argument("--world", metavar="NAME", help="which world (default: one that nobody has seen)")
    add_rules(parser)
    add_training(parser)
    add_json(parser)


def _add_ask(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "ask",
        ask,
        "run one configuration, or all of a table, and pay for it",
        "  companion lab ask my_lab --architecture xlstm --num-params 3e7 --num-tokens 1e9 --learning-rate 2e-3 \\\n"
        "      --batch 64 --schedule cosine --seed 0\n"
        "  companion lab ask my_lab --table asks.csv --cost-only\n"
        "  companion lab ask my_lab --table asks.csv --json\n"
        "\n"
        "A table has the columns architecture, num_params, num_tokens, learning_rate, batch_size_seqs and, if wanted,\n"
        "schedule, warmup_steps, seed. All its runs are made, or none. A run that was asked before costs nothing.\n"
        "Where runs are trained, one that was stopped goes on when it is asked for again.",
        to=to,
    )
    _add_folder(parser)
    add_run_options(parser, required=False)
    parser.add_argument("--table", type=Path, metavar="FILE", help="asks (CSV), instead of one by options")
    parser.add_argument("--cost-only", action="store_true", help="say what it would cost and run nothing")
    add_json(parser)


def _add_runs(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "runs",
        runs,
        "write the runs so far as a run table that `companion fit`, `isoflop` and `plan` read",
        "  companion lab runs my_lab --out runs.csv\n"
        "  companion lab runs my_lab --out runs.csv --diverged diverged.csv\n"
        "  companion fit runs.csv --architecture xlstm --gamma 1",
        to=to,
    )
    _add_folder(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="run table (CSV; default: LAB/runs.csv)")
    parser.add_argument("--diverged", type=Path, metavar="FILE", help="also write the runs that diverged (CSV)")
    add_json(parser)


def _add_predict(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "predict",
        predict,
        "choose the target run, predict its loss with an interval, and commit both",
        "  companion lab predict my_lab --loss 2.71 --low 2.66 --high 2.76 --architecture xlstm --num-params 9e8 \\\n"
        "      --learning-rate 1e-3 --batch 128\n"
        "\n"
        "Without --num-tokens the run takes all tokens that the target compute allows. A committed prediction cannot\n"
        "be changed, and no runs can be asked for after it. Keep prediction.json: it opens the commitment.",
        to=to,
    )
    _add_folder(parser)
    for name, meaning in (("loss", "predicted loss"), ("low", "lower end of the interval"), ("high", "its upper end")):
        parser.add_argument(f"--{name}", required=True, type=positive, metavar="L", help=f"{meaning}, nats per token")
    add_run_options(parser, required=True)
    add_json(parser)


# ---- commands ---------------------------------------------------------------------------------------


def new(arguments: argparse.Namespace) -> None:
    """`companion lab new`: make the folder, say the task."""
    lab = new_laboratory(arguments.lab, rules_of(arguments), arguments.world)
    if arguments.json:
        return print_json(lab.rules.as_dict())
    print_rules(lab)
    say_next("lab", "ask", str(arguments.lab), "--help")
    return None


def show(arguments: argparse.Namespace) -> None:
    """`companion lab show`: rules, runs, what is left."""
    lab = open_laboratory(arguments.lab)
    state = state_with_notes(lab)
    if arguments.json:
        return print_json({"rules": lab.rules.as_dict(), **summary(lab, state), "runs": lines(state.answers)})
    print_rules(lab)
    if state.answers:
        print_table(pd.DataFrame([shown(answer, lab.rules) for answer in state.answers]))
    for each in state.unfinished:
        print(f"not finished, and paid for: {in_words(each)}; ask for it again and it goes on")
    print(left(lab, state))
    print(f"prediction: {'committed, ' + state.commitment if state.commitment else 'none yet'}")
    return None


def ask(arguments: argparse.Namespace) -> None:
    """`companion lab ask`: costs first, then the runs."""
    lab = open_laboratory(arguments.lab)
    asks = asks_of(arguments)
    before = state_with_notes(lab)
    for note in nearest_sizes(asks, lab.rules):
        say(f"note: {note}")
    if arguments.cost_only:
        costs = [lab.cost(each) for each in asks]
        needed = sum(cost.charged(lab.rules) for cost in costs)
        rows = [{**each.checked(lab.rules).as_dict(), "train_flops": cost.train_flops, "gpu_hours": cost.gpu_hours}
                for each, cost in zip(asks, costs, strict=True)]  # fmt: skip
        if arguments.json:
            return print_json({"costs": rows, "cost": needed, **summary(lab, before)})
        print(f"{plural(len(asks), 'run')} would cost {lab.rules.amount(needed)}; {left(lab, before)}")
        if lab.rules.training is not None:
            seconds = 3600 * sum(cost.gpu_hours for cost in costs)
            print(f"predicted: about {duration(seconds)} of training on {lab.rules.training.device}")
        return None
    if lab.backend is not None and not arguments.json:
        needed = sum(lab.cost(each).charged(lab.rules) for each in asks)
        print(f"{plural(len(asks), 'run')}, {lab.rules.amount(needed)} at most; {left(lab, before)}", flush=True)
    answers = lab.ask(asks, progress=True)
    state = state_with_notes(lab)
    if arguments.json:
        return print_json({"runs": lines(answers), **summary(lab, state)})
    print_table(pd.DataFrame([shown(answer, lab.rules) for answer in answers]))
    print(left(lab, state))
    return None


def runs(arguments: argparse.Namespace) -> None:
    """`companion lab runs`: a run table, and those that diverged apart from it."""
    lab = open_laboratory(arguments.lab)
    state_with_notes(lab)
    table, diverged = lab.runs()
    out = arguments.out or arguments.lab / "runs.csv"
    if table.empty:
        raise InputError(f"{arguments.lab}: no run has ended with a loss yet; ask for one with `companion lab ask`")
    targets = [(out, table)] if arguments.diverged is None else [(out, table), (arguments.diverged, diverged)]
    for path, _ in targets:
        check_target(path)
    for path, rows in targets:
        write_whole(path, rows.to_csv(index=False))
    if len(diverged) and arguments.diverged is None:
        say(f"note: {plural(len(diverged), 'run')} diverged and left out; --diverged FILE writes them")
    if arguments.json:
        return print_json({"files": [str(path) for path, _ in targets], "runs": len(table), "diverged": len(diverged)})
    print(f"{out}: {plural(len(table), 'run')}")
    return None


def predict(arguments: argparse.Namespace) -> None:
    """`companion lab predict`: commit it, say what was committed."""
    lab = open_laboratory(arguments.lab)
    tokens = arguments.num_tokens or target_tokens(
        lab.rules, arguments.architecture, arguments.num_params, arguments.batch
    )
    chosen = one_ask(arguments, tokens)
    for note in nearest_sizes([chosen], lab.rules):
        say(f"note: {note}")
    prediction = Prediction(ask=chosen, loss=arguments.loss, low=arguments.low, high=arguments.high)
    committed = lab.predict(prediction)
    made = lab.prediction()
    flops = made.ask.flops_by(lab.rules)
    if arguments.json:
        return print_json({"commitment": committed, **made.as_dict(), "train_flops": flops})
    print(f"committed: loss {made.loss:g}, {level_text(lab.rules.level)} within {made.low:g} to {made.high:g}")
    print(
        f"of {letters(made.ask.num_params)} parameters on {letters(made.ask.num_tokens)} tokens, "
        f"{power_of_ten(flops, 3)} FLOP ({percent(flops / lab.rules.target_flops, 3)} of the target)"
    )
    print(f"commitment: {committed}")
    return None


def reveal(arguments: argparse.Namespace) -> None:
    """`companion lab reveal`: the loss of the target run."""
    lab = open_laboratory(arguments.lab)
    made, outcome = lab.prediction(), lab.reveal()
    inside = outcome.val_loss is not None and made.low <= outcome.val_loss <= made.high
    floor = floor_of(lab, made.ask)
    if arguments.json:
        found = {**outcome.as_dict(), "diverged": outcome.diverged, "covered": inside, **made.as_dict()}
        return print_json(found | ({} if lab.rules.training is None else floor_fields(floor)))
    if outcome.val_loss is None:
        print(f"the run diverged after {percent(outcome.share_done)} of its steps")
    else:
        print(f"loss {outcome.val_loss:.4f}; predicted {made.loss:g}, {made.low:g} to {made.high:g}")
        print(f"the interval {'holds' if inside else 'does not hold'} it")
        print_floor(floor, outcome.val_loss)
    return None


def show_score(arguments: argparse.Namespace) -> None:
    """`companion lab score`: the total and its parts."""
    lab = open_laboratory(arguments.lab)
    found = lab.score()
    floor = floor_of(lab, lab.prediction().ask)
    if arguments.json:
        return print_json(found.as_dict() | ({} if lab.rules.training is None else floor_fields(floor)))
    print_score(found)
    final = lab.state().final
    print_floor(floor, None if final is None else final.val_loss)
    return None
