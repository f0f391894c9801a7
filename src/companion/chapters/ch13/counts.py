"""Models beside the accounting: parameters, products, kept bytes; and prefill with steps against one pass."""

from dataclasses import replace
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from companion.accounting import TrainingFlops, count_flops, num_params
from companion.accounting.conventions import PRODUCTS
from companion.accounting.inference import cache_bytes
from companion.architectures import MLSTM, PRESET_SIZES, Architecture, make_architecture, preset
from companion.chapters.timed_models import MODEL_LABELS
from companion.formatting import listed, power_of_ten, share_in_words, significant, span_text
from companion.kernels.mlstm import checks as choice
from companion.kernels.mlstm.ops import default_chunk_size
from companion.models import LanguageModel, Memory, build
from companion.plotting import Html, show_table

#: Query heads that share one of keys and values where heads are grouped; of which layers of a hybrid one is attention.
GROUP, EVERY = 4, 8
#: Widths of the models whose steps are compared with one pass: these take milliseconds.
SMALL: dict[str, Any] = {"d_model": 64, "n_layers": 8, "n_heads": 4, "vocab_size": 101}
#: Tokens of a sequence that is compared, and those that are read at once.
SEQUENCE, PROMPT = 48, 20


def presets(size: str) -> dict[str, Architecture]:
    """The models of one size of the paper, by name: also with grouped heads and as a hybrid, where heads divide."""
    transformer = preset("transformer", size)
    heads = int(transformer.n_heads)
    grouped = heads // GROUP if heads % GROUP == 0 else heads
    return {
        "transformer": transformer,
        "grouped": preset("transformer", size, n_kv_heads=grouped),
        "xlstm": preset("xlstm", size),
        "hybrid": preset("xlstm", size, attention_every=EVERY, attention_heads=heads, n_kv_heads=grouped),
    }


def small_models() -> dict[str, Architecture]:
    """The same models, 64 wide."""
    heads = SMALL["n_heads"]
    return {
        "transformer": make_architecture("transformer", **SMALL),
        "grouped": make_architecture("transformer", **SMALL, n_kv_heads=heads // GROUP),
        "xlstm": make_architecture("xlstm", **SMALL),
        "hybrid": make_architecture("xlstm", **SMALL, attention_every=EVERY, attention_heads=heads, n_kv_heads=1),
    }


def module_params(architecture: Architecture) -> int:
    """Numbers in the weights of the module, which has none of them in memory (device `meta`)."""
    return sum(parameter.numel() for parameter in build(architecture, device="meta").parameters())


def counted_products(architecture: Architecture, batch_size: int, context_length: int) -> tuple[int, int]:
    """FLOPs of products that torch counts in a pass: forward, and forward with backward.

    Shapes alone go through the model, in bfloat16 and through the operators of our kernels, as on a GPU.
    """
    model = build(architecture, device="meta", dtype=torch.bfloat16)
    tokens = torch.zeros(batch_size, context_length, dtype=torch.long, device="meta")
    as_on_gpu = mock.patch.object(choice, "choose_backend", return_value="triton")
    with as_on_gpu, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(tokens)
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops()


def products(architecture: Architecture, context_length: int) -> TrainingFlops:
    """FLOPs of the same products by the accounting: all pairs of attention, in the chunks of our kernels."""
    widths = [int(mixer.d_qk) for mixer, _ in architecture.layers if isinstance(mixer, MLSTM)]
    size = default_chunk_size(widths[0], torch.bfloat16) if widths else PRODUCTS.chunk_size
    return count_flops(architecture, context_length, replace(PRODUCTS, chunk_size=size))


def parameter_checks() -> pd.DataFrame:
    """Parameters of every model at every size of the paper.

    Returns
    -------
    DataFrame
        `model`, `size`, `module`, `accounting`.
    """
    rows = [
        {"model": name, "size": size, "module": module_params(made), "accounting": int(num_params(made))}
        for size in PRESET_SIZES
        for name, made in presets(size).items()
    ]
    return pd.DataFrame(rows)


def checks(size: str, context_length: int, batch_size: int = 2) -> pd.DataFrame:
    """What module and accounting say of every model of one size.

    Parameters
    ----------
    size
        of the paper's presets.
    context_length, batch_size
        tokens and sequences of a training pass; kept bytes are those of one sequence.

    Returns
    -------
    DataFrame
        `model`, `quantity` (parameters, bytes, forward, training), `module`, `accounting`.
    """
    rows = []
    for name, made in presets(size).items():
        forward, training = counted_products(made, batch_size, context_length)
        counted = products(made, context_length)
        memory = Memory.empty(made, batch_size=1, max_length=context_length, device="meta")
        found = {
            "parameters": (module_params(made), num_params(made)),
            "bytes": (memory.num_bytes, cache_bytes(made, context_length)),
            "forward": (forward, batch_size * counted.forward.total),
            "training": (training, batch_size * counted.components.total),
        }
        rows += [{"model": name, "quantity": key, "module": a, "accounting": float(b)} for key, (a, b) in found.items()]
    return pd.DataFrame(rows)


@torch.no_grad()
def step_errors(seed: int = 0) -> pd.DataFrame:
    """Logits of a prefill with steps behind it, and of steps behind a copied prefix, against one pass in float64.

    Returns
    -------
    DataFrame
        `model`, `steps`, `copied` (all in float64), `rounded` and `rounded_pass` (steps and one pass in bfloat16):
        ‖difference‖ / ‖one pass in float64‖ with the same weights.
    """
    rows = []
    for name, made in small_models().items():
        torch.manual_seed(seed)
        low = _with_open_gates(build(made)).to(torch.bfloat16)
        model = build(made, dtype=torch.float64)
        model.load_state_dict(low.state_dict())
        tokens = torch.randint(0, int(made.vocab_size), (2, SEQUENCE))
        whole = model(tokens)
        found = {"steps": _in_steps(model, tokens), "copied": _in_steps(model, tokens, copied=True)}
        found |= {"rounded": _in_steps(low, tokens), "rounded_pass": low(tokens)}
        errors = {key: float((logits.double() - whole).norm() / whole.norm()) for key, logits in found.items()}
        rows.append({"model": name, **errors})
    return pd.DataFrame(rows)


def _in_steps(model: LanguageModel, tokens: Tensor, copied: bool = False) -> Tensor:
    """Logits of a prefill and of steps behind it, or behind a copy of what it left."""
    dtype = model.unembedding.weight.dtype
    memory = Memory.empty(model.architecture, tokens.shape[0], SEQUENCE, dtype=dtype)
    pieces = [model(tokens[:, :PROMPT], memory)]
    if copied:
        memory = memory.copy()
    pieces += [model(tokens[:, t : t + 1], memory) for t in range(PROMPT, SEQUENCE)]
    return torch.cat(pieces, dim=1)


def _with_open_gates(model: LanguageModel) -> LanguageModel:
    """Input gates of the mLSTM start closed, and its state then holds next to nothing: here they are half open."""
    for name, parameter in model.named_parameters():
        if name.endswith("gates.weight"):
            parameter.copy_(0.1 * torch.randn_like(parameter))
        elif name.endswith("gates.bias"):
            parameter.chunk(2)[0].zero_()
    return model


def checks_table(table: pd.DataFrame, size: str, context_length: int) -> Html:
    """Module and accounting of `checks`: the number where both are equal, else both."""
    names = {"parameters": "parameters", "bytes": "kept bytes", "forward": "FLOPs, forward"}
    names["training"] = "FLOPs, both passes"
    rows = []
    for name, part in table.groupby("model", sort=False):
        row = {"model": MODEL_LABELS[str(name)]}
        for each in part.to_dict("records"):
            same = each["module"] == each["accounting"]
            row[names[each["quantity"]]] = f"{each['module']:,}" if same else (
                f"{each['module']:,}, not {each['accounting']:,.0f}"
            )  # fmt: skip
        rows.append(row)
    return show_table(
        pd.DataFrame(rows),
        name="model-counts",
        caption="What the module has and what the accounting says: one number where both are equal. "
        f"{size.upper()}, {context_length} tokens. Bytes kept of one sequence, keys and values in bfloat16, states in "
        "float32. FLOPs of the products for two sequences.",
    )


def errors_table(table: pd.DataFrame) -> Html:
    """Errors of `step_errors`."""
    return show_table(
        table.assign(model=table["model"].map(MODEL_LABELS)),
        name="model-steps",
        caption=f"Logits of a prefill of {PROMPT} tokens with {SEQUENCE - PROMPT} steps behind it, against those of "
        "one pass in float64: norm of the difference over the norm. Copied: steps behind a copy of the memory.",
        formats=dict.fromkeys(("steps", "copied"), lambda v: power_of_ten(v, 1))
        | dict.fromkeys(("rounded", "rounded_pass"), lambda v: significant(v, 2)),
        labels={"steps": "steps", "copied": "steps, copied", "rounded": "steps, bfloat16"}
        | {"rounded_pass": "one pass, bfloat16"},
    )


def count_facts(table: pd.DataFrame, parameters: pd.DataFrame, errors: pd.DataFrame) -> dict[str, object]:
    """How many counts agree, and how far steps are from one pass."""
    same = parameters["module"] == parameters["accounting"]
    exact, rounded = errors[["steps", "copied"]].max().max(), errors["rounded"]
    return {
        "c13_presets": share_in_words(int(same.sum()), len(parameters)),
        "c13_counts": counts_verdict(table[table["module"] != table["accounting"]]),
        "c13_steps_exact": power_of_ten(exact, 1),
        "c13_steps_rounded": span_text(rounded, lambda v: significant(v, 1)),
    }


def counts_verdict(unequal: pd.DataFrame) -> str:
    """A verdict: whether every count of a module is that of the accounting, and which are not."""
    if unequal.empty:
        return "Every count is equal to the last digit"
    words = {
        "parameters": "parameters",
        "bytes": "bytes",
        "forward": "FLOPs forward",
        "training": "FLOPs of both passes",
    }
    off = [f"{words[row['quantity']]} of the {MODEL_LABELS[row['model']]}" for row in unequal.to_dict("records")]
    return f"All counts are equal but {listed(off)}"
