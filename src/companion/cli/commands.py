"""What each command of `companion` does: compute with the package, print as text or as one JSON object."""

import argparse
import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import Breakdown, count_flops, count_params, get_convention, num_params
from companion.architectures import Architecture, Attention, architecture_class, make_architecture, preset
from companion.cli.output import writes_utf8
from companion.errors import InputError
from companion.formatting import count, percent
from companion.ledger.entries import DIFFERS, NOT_ATTEMPTED, REPRODUCED, build_ledger, summarize, to_frame

VERDICTS = (REPRODUCED, DIFFERS, NOT_ATTEMPTED)
_SHAPES = ("d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff", "vocab_size")
_ATTENTION = ("n_kv_heads", "qk_norm", "window", "attention_heads")
#: What a model may have besides its shapes; allowed beside --size.
_SHAPE_OPTIONS = ("tied_embeddings", "attention_every", *_ATTENTION)


def print_json(value: Any) -> None:
    """One JSON object; NaN and infinity become null, NumPy numbers plain ones."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=not writes_utf8()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(table: pd.DataFrame) -> None:
    """A table as aligned text."""
    print(table.to_string(index=False))


# ---- accounting ---------------------------------------------------------------------------------


def read_architecture(arguments: argparse.Namespace) -> Architecture:
    """The model that the options of `companion.cli.options.add_shapes` describe."""
    given = {name: value for name in _SHAPES if (value := getattr(arguments, name)) is not None}
    options = {name: value for name in _SHAPE_OPTIONS if (value := getattr(arguments, name))}
    of = architecture_class(arguments.architecture)
    has_attention = issubclass(of.mixer_class, Attention) or of.usual_attention_every or "attention_every" in options
    if not has_attention and (wrong := [_option(name) for name in options if name in _ATTENTION]):
        raise InputError(
            f"{', '.join(wrong)}: this {of.name} has no keys and values to share or normalize; layers with attention "
            "come with --attention-every"
        )
    if arguments.size:
        if given:
            raise InputError(
                f"--size {arguments.size} sets all shapes: leave out {', '.join(_option(n) for n in given)}"
            )
        return preset(arguments.architecture, arguments.size, **options)
    if missing := [_option(name) for name in ("d_model", "n_layers", "n_heads") if name not in given]:
        raise InputError(f"missing {', '.join(missing)} (or give --size)")
    return make_architecture(arguments.architecture, **given, **options)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def flops(arguments: argparse.Namespace) -> None:
    """`companion flops`: training FLOPs per token by component, forward and backward."""
    architecture = read_architecture(arguments)
    convention = get_convention(arguments.convention)
    if arguments.chunk_size:
        convention = replace(convention, chunk_size=arguments.chunk_size)
    counted = count_flops(architecture, arguments.context_length, convention)
    forward, backward = counted.forward / counted.context_length, counted.backward / counted.context_length
    result: dict[str, Any] = {
        "architecture": architecture.name,
        "shapes": architecture.shapes(),
        "context_length": arguments.context_length,
        "convention": convention.name,
        "chunk_size": convention.chunk_size,
        "num_params": num_params(architecture),
        "train_flops_per_token": counted.train_flops_per_token,
        "breakdown": {"forward": forward.as_dict(), "backward": backward.as_dict()},
    }
    if arguments.num_tokens:
        result |= {"num_tokens": arguments.num_tokens, "train_flops": counted.train_flops(arguments.num_tokens)}
    if arguments.json:
        return print_json(result)
    print(f"{architecture.name}, {count(result['num_params'])} parameters, T = {arguments.context_length},", end=" ")
    print(f"convention {convention.name}: {counted.train_flops_per_token:.6e} FLOP per token")
    if arguments.num_tokens:
        print(f"train_flops for {count(arguments.num_tokens)} tokens: {result['train_flops']:.6e}")
    total = counted.train_flops_per_token
    print_table(
        pd.DataFrame(
            [
                {
                    "component": name,
                    "forward FLOP/token": f"{value:.6g}",
                    "backward FLOP/token": f"{getattr(backward, name):.6g}",
                    "share": percent((value + getattr(backward, name)) / total, decimals=2),
                }
                for name, value in forward.items()
            ]
        )
    )
    return None


def params(arguments: argparse.Namespace) -> None:
    """`companion params`: parameters by component."""
    architecture = read_architecture(arguments)
    counted: Breakdown = count_params(architecture)
    result = {
        "architecture": architecture.name,
        "shapes": architecture.shapes(),
        "num_params": counted.total,
        "breakdown": counted.as_dict(),
    }
    if arguments.json:
        return print_json(result)
    print(f"{architecture.name}: {counted.total} parameters")
    shares = {name: percent(value / counted.total, decimals=2) for name, value in counted.items()}
    print_table(pd.DataFrame([{"component": n, "parameters": v, "share": shares[n]} for n, v in counted.items()]))
    return None


# ---- ledger -------------------------------------------------------------------------------------


def ledger(arguments: argparse.Namespace) -> None:
    """`companion ledger`: rows of all or some sections, and their count by verdict."""
    rows = build_ledger(sections=arguments.section)
    counts = summarize(rows)
    if arguments.verdict:
        rows = [row for row in rows if row.verdict == arguments.verdict]
    if arguments.json:
        return print_json({"summary": counts.to_dict("records"), "rows": [asdict(row) for row in rows]})
    if rows:
        frame = to_frame(rows)
        frame["published"] = frame["published"].map(lambda v: f"{v:.10g}")
        for column, style in (("ours", "{:.10g}"), ("difference", "{:.2g}"), ("tolerance", "{:.2g}")):
            frame[column] = ["" if pd.isna(value) else style.format(value) for value in frame[column]]
        for section, part in frame.groupby("section", sort=False):
            print(f"\n{section}")
            print_table(part[["entry", "quantity", "published", "ours", "difference", "tolerance", "verdict", "note"]])
    print()
    print_table(counts)
    return None
