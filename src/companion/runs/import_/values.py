"""What people write into cells and headers: numbers with units, and other names for the columns of a run table."""

import math
import re
from dataclasses import dataclass

from companion.errors import InputError

#: Seconds of a day times 1e15: floating-point operations in one petaflop/s-day.
PF_DAY = 8.64e19
_PREFIX = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
_WORDS = {
    "thousand": 1e3,
    "thousands": 1e3,
    "million": 1e6,
    "millions": 1e6,
    "mn": 1e6,
    "billion": 1e9,
    "billions": 1e9,
    "bn": 1e9,
    "trillion": 1e12,
    "trillions": 1e12,
}
_CELL = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.ASCII | re.DOTALL)
_GROUPS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_HEADER_UNIT = re.compile(r"(?:[\s_]*[(\[]([^)\]]+)[)\]]|[\s_]+(?:in[\s_]+)?([a-zA-Z/\-]+))\s*$")
_PETAFLOP_DAYS = re.compile(r"p(?:eta)?f(?:lops?)?(?:/s)?[\s_\-]*days?", re.IGNORECASE)
_FLOPS = re.compile(r"([kmgtpezy]?)flops?", re.IGNORECASE)


def unit_factor(unit: str, in_header: bool = False) -> float | None:
    """What a unit multiplies a number by: `M`, `bn`, `ZFLOP`, `PF-days`, `tokens`; None if it is none.

    A single letter of a header's name counts only in capitals: `num_params_M` is millions, `loss_m` is a name.
    """
    text = unit.strip().rstrip(".")
    plain = text.lower()
    if _PETAFLOP_DAYS.fullmatch(plain):
        return PF_DAY
    if match := _FLOPS.fullmatch(plain):
        return _PREFIX[match[1].lower()] if match[1] else 1.0
    if plain in _WORDS:
        return _WORDS[plain]
    if len(text) == 1 and plain in _PREFIX and (text.isupper() or not in_header):
        return _PREFIX[plain]
    words = plain.split()
    if len(words) == 2 and words[1] in ("params", "parameters", "tokens", "tok", "flop", "flops"):
        return unit_factor(words[0] if len(words[0]) > 1 else words[0].upper())
    return 1.0 if plain in ("params", "parameters", "tokens", "tok", "nats") and not in_header else None


def header_unit(name: str) -> float | None:
    """The factor that a column's name announces, as in `params (M)`, `tokens_B`, `compute [PF-days]`; None if none."""
    match = _HEADER_UNIT.search(name)
    if match is None:
        return None
    unit = match[1] or match[2]
    if match[1] is None and len(name) == len(match[0].strip()):
        return None
    factor = unit_factor(unit, in_header=match[1] is None)
    return factor if factor != 1.0 else None


@dataclass(frozen=True)
class Number:
    """A number read from a cell, and whether a unit stood behind it."""

    value: float | int
    with_unit: bool


def read_number(text: str, decimal_comma: bool = False) -> Number:
    """The number in a cell: 412M, 2.1B, 3e18, 1,234,567, 1.2 ZFLOP, 14 PF-days.

    Whole numbers without a unit stay exact integers of any size. With `decimal_comma`, 3,21 is 3.21.

    Raises
    ------
    InputError
        if the cell holds no such number; the message has no file or row.
    """
    plain = text.strip().replace(" ", " ")
    if _GROUPS.fullmatch(plain.split(" ")[0]) and not (decimal_comma and plain.count(",") == 1 and "." not in plain):
        plain = plain.replace(",", "")
    elif decimal_comma and plain.count(",") == 1:
        plain = plain.replace(",", ".")
    match = _CELL.fullmatch(plain)
    if match is None:
        raise InputError(f"{text!r} is not a number")
    digits, unit = match[1], match[2].strip()
    factor = unit_factor(unit) if unit else 1.0
    if factor is None:
        raise InputError(f"{text!r}: unit {unit!r} is not known")
    exact = re.fullmatch(r"[+-]?\d+", digits) and not unit
    value: float | int = int(digits) if exact else float(digits) * factor
    if not exact and not math.isfinite(value):
        raise InputError(f"{text!r} is infinite")
    return Number(value, bool(unit))


#: Other names of the columns of a run table, in the order of preference, lower case with underscores.
ALIASES: dict[str, tuple[str, ...]] = {
    "architecture": ("architecture", "arch", "model_family", "family", "model_type", "architecture_name", "model"),
    "num_params": (
        "num_params",
        "n_params",
        "nparams",
        "params",
        "parameters",
        "num_parameters",
        "total_params",
        "total_parameters",
        "params_total",
        "n_parameters",
        "parameter_count",
        "param_count",
        "model_params",
        "model_size",
        "size",
        "n",
    ),
    "num_active_params": ("num_active_params", "active_params", "active_parameters", "params_active", "n_active"),
    "num_tokens": (
        "num_tokens",
        "n_tokens",
        "tokens",
        "train_tokens",
        "training_tokens",
        "total_tokens",
        "tokens_seen",
        "num_train_tokens",
        "dataset_size",
        "tokens_trained",
        "d",
    ),
    "train_flops": (
        "train_flops",
        "training_flops",
        "training_flop",
        "train_flop",
        "total_flops",
        "flops",
        "flop",
        "compute",
        "train_compute",
        "training_compute",
        "c",
    ),
    "isoflop_budget": (
        "isoflop_budget",
        "compute_budget",
        "flops_budget",
        "flop_budget",
        "budget_flops",
        "budget",
        "isoflop",
        "nominal_flops",
    ),
    "val_loss": (
        "val_loss",
        "validation_loss",
        "valid_loss",
        "eval_loss",
        "final_val_loss",
        "final_loss",
        "test_loss",
        "val_cross_entropy",
        "cross_entropy",
        "nll",
        "loss",
    ),
    "train_loss": ("train_loss", "training_loss", "final_train_loss"),
    "experiment": ("experiment", "design", "sweep"),
    "context_length": (
        "context_length",
        "seq_len",
        "sequence_length",
        "seq_length",
        "seqlen",
        "block_size",
        "max_seq_len",
        "max_sequence_length",
        "ctx_len",
        "context",
        "n_ctx",
    ),
    "batch_size_seqs": (
        "batch_size_seqs",
        "global_batch_size",
        "batch_size",
        "global_bs",
        "train_batch_size",
        "bs",
    ),
    "train_steps": (
        "train_steps",
        "num_train_steps",
        "steps",
        "num_steps",
        "total_steps",
        "max_steps",
        "n_steps",
        "max_iters",
        "iterations",
        "iters",
        "step",
    ),
    "learning_rate": ("learning_rate", "lr", "peak_lr", "max_lr", "peak_learning_rate"),
    "d_model": ("d_model", "hidden_size", "hidden_dim", "n_embd", "embedding_dim", "width", "dim"),
    "n_layers": ("n_layers", "num_layers", "n_layer", "num_hidden_layers", "depth", "layers", "num_blocks"),
    "n_heads": ("n_heads", "num_heads", "n_head", "num_attention_heads", "heads"),
    "n_kv_heads": ("n_kv_heads", "num_kv_heads", "num_key_value_heads", "kv_heads"),
    "d_qk": ("d_qk", "qk_dim", "head_dim_qk"),
    "d_hv": ("d_hv", "head_dim", "head_width", "d_head"),
    "d_ff": ("d_ff", "intermediate_size", "intermediate_dim", "ffn_dim", "d_ffn", "ffn_hidden_size"),
    "vocab_size": ("vocab_size", "n_vocab", "vocabulary_size", "padded_vocab_size", "vocab"),
    "window": ("window", "sliding_window", "window_size", "attention_window"),
    "attention_every": ("attention_every", "attn_every", "full_attention_interval", "attention_interval"),
    "attention_heads": ("attention_heads", "attn_heads", "num_attn_heads"),
    "tied_embeddings": ("tied_embeddings", "tie_embeddings", "tie_word_embeddings", "weight_tying"),
    "qk_norm": ("qk_norm", "use_qk_norm"),
    "seed": ("seed", "random_seed"),
    "source": ("source",),
}
#: Names of what is not a column of a run table, and from which one follows.
PARTS: dict[str, tuple[str, ...]] = {
    "embedding_params": (
        "embedding_params",
        "params_embedding",
        "params_embed",
        "n_emb",
        "emb_params",
        "embed_params",
        "num_embedding_params",
    ),
    "other_params": (
        "non_embedding_params",
        "params_no_embed",
        "params_non_embedding",
        "non_embed_params",
        "num_non_embedding_params",
        "n_no_emb",
        "n_non_emb",
        "other_params",
        "params_other",
        "params_rest",
        "params_non_embed",
        "params_non_emb",
        "backbone_params",
    ),
    "batch_tokens": ("batch_tokens", "tokens_per_batch", "tokens_per_step", "batch_size_tokens"),
    "tokens_per_param": ("tokens_per_param", "token_param_ratio", "tpp", "tokens_per_parameter", "token_multiplier"),
    "perplexity": ("perplexity", "ppl", "val_perplexity", "val_ppl", "eval_perplexity", "validation_perplexity"),
}


def plain_name(name: str) -> str:
    """A column's name without unit, in lower case, words joined by underscores."""
    unit = _HEADER_UNIT.search(name)
    if unit and header_unit(name) is not None:
        name = name[: unit.start()]
    return re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")
