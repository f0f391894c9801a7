"""FLOPs and bytes of the components of a pass, as `companion.accounting` counts them. Needs no torch.

Weights, activations and what is kept are split so that a step and a prefill sum to `count_step` and `count_prefill`.
The accounting has no pass in which attention or the mLSTM is a chain of kernels, nor one of training. Here

* the core of a mixer in a prefill and in training is the sum over its kernels (`companion.accounting.kernel_costs`);
* the other parts of a training step move three times what their forward pass moves, as they have three times its
  FLOPs; weights are read twice and gradients written once, in 4 bytes;
* the logits of training are written, read by the loss, and their gradient written over them and read twice;
* the optimizer reads weight, gradient and two moments, and writes all but the gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from companion.accounting.conventions import PAPER
from companion.accounting.inference import BF16, Precision
from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    CellShape,
    KernelCost,
    attention_kernel_costs,
    cell_kernel_costs,
    keeps_states,
)
from companion.accounting.params import block_branches, num_params
from companion.architectures import Architecture, Attention, Mixer

PARTS = ("step", "prefill_layer", "training")
#: Components of a pass, in its order; `attention` and `mlstm` are the cores of the mixers.
COMPONENTS = (
    "embedding",
    "norms",
    "qkv",
    "heads",
    "attention",
    "mlstm",
    "output_gate",
    "out",
    "ffn_up",
    "ffn_activation",
    "ffn_down",
    "unembedding",
    "loss",
    "sampling",
    "optimizer",
    "gaps",
)
#: Bytes of a weight of training, and of weight, gradient and moments that AdamW reads and writes.
TRAINED_BYTES, OPTIMIZER_BYTES = 4, 28


@dataclass
class Cost:
    """FLOPs, bytes, and of a chain of kernels what each of them costs."""

    flops: float = 0.0
    bytes: float = 0.0
    kernels: tuple[tuple[float, float], ...] = ()

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """Least seconds at these peaks: of kernels one after another the sum of their own."""
        chain = self.kernels or ((self.flops, self.bytes),)
        return sum(max(flops / flops_per_s, moved / bytes_per_s) for flops, moved in chain)


def component_costs(
    architecture: Architecture, part: str, context_length: int, batch_size: int, chunk_size: int = 128
) -> dict[str, Cost]:
    """What every component of a pass costs, over all layers and the whole batch.

    Parameters
    ----------
    architecture
        of `prefill_layer` a single layer, which is counted alone: without embedding and unembedding.
    part
        of `PARTS`; a step is the last of `context_length` tokens.
    chunk_size
        tokens of a chunk of the mLSTM.
    """
    a, tokens = architecture, batch_size * (1 if part == "step" else context_length)
    training = part == "training"
    costs: dict[str, Cost] = {name: Cost() for name in COMPONENTS if name != "gaps"}
    for mixer, number in a.layers:
        _add_layer(costs, _layer(a, mixer, tokens, training), int(number))
        core = _core(mixer, part, context_length, batch_size, chunk_size)
        each = costs[mixer.name]
        each.flops, each.bytes = each.flops + int(number) * core.flops, each.bytes + int(number) * core.bytes
        each.kernels += core.kernels * int(number)
    if part != "prefill_layer":
        _add_ends(costs, a, tokens, training)
    if training:
        costs["optimizer"] = Cost(0.0, float(num_params(a)) * OPTIMIZER_BYTES)
    return costs


def _layer(a: Architecture, mixer: Mixer, tokens: int, training: bool) -> dict[str, tuple[float, float, float]]:
    """FLOPs, weights and numbers moved of every component of a layer but the mixer's core; forward."""
    d, d_ff, hidden, branches = a.d_model, a.d_ff, mixer.hidden_width, block_branches(a)
    attention = isinstance(mixer, Attention)
    gated = 0.0 if attention else PAPER.output_gate_elementwise_flops * hidden
    products = mixer.projection_flops(d) - 2 * d * hidden + mixer.output_gate_flops(d, PAPER) - gated
    weights = mixer.projection_params(d) - d * hidden + mixer.output_gate_params(d)
    more = 0 if attention else d + 2 * mixer.n_heads + hidden
    ffn = d if d_ff else 0
    found: dict[str, tuple[Any, Any, Any]] = {
        "norms": (0, branches * d, 5 * branches * d),
        "qkv": (products, weights, d + mixer.qkv_width() + more),
        "heads": (0, mixer.norm_params() if attention else 0, 2 * mixer.norm_width() if attention else 0),
        "output_gate": (gated, 0 if attention else hidden, 0 if attention else 5 * hidden),
        "out": (2 * d * hidden, d * hidden, hidden + d),
        "ffn_up": (4 * d * d_ff, 2 * d * d_ff, ffn + 2 * d_ff),
        "ffn_activation": (PAPER.ffn_elementwise_flops * d_ff, 0, 3 * d_ff),
        "ffn_down": (2 * d * d_ff, d * d_ff, d_ff + ffn),
    }
    return {name: _pass(*each, tokens, training) for name, each in found.items()}


def _pass(
    flops: float, weights: float, numbers: float, tokens: int, training: bool, precision: Precision = BF16
) -> tuple[float, float, float]:
    """FLOPs, bytes of weights and bytes of activations, from those of one token."""
    times = 3 if training else 1
    weight_bytes = 3 * TRAINED_BYTES if training else precision.bytes_per_weight
    return times * flops * tokens, weights * weight_bytes, times * numbers * tokens * precision.bytes_per_activation


def _add_layer(costs: dict[str, Cost], layer: dict[str, tuple[float, float, float]], number: int) -> None:
    for name, (flops, weight_bytes, moved) in layer.items():
        costs[name].flops += float(number * flops)
        costs[name].bytes += float(number * (weight_bytes + moved))


def _add_ends(costs: dict[str, Cost], a: Architecture, tokens: int, training: bool) -> None:
    """Embedding, last norm, unembedding and loss."""
    d, vocab = a.d_model, a.vocab_size
    ends: dict[str, tuple[Any, Any, Any]] = {
        "embedding": (0, 0, 2 * d),
        "norms": (0, d, 2 * d),
        "unembedding": (2 * d * vocab, d * vocab, vocab),
    }
    _add_layer(costs, {name: _pass(*each, tokens, training) for name, each in ends.items()}, 1)
    if training:
        costs["loss"].bytes += 2.0 * tokens * vocab * BF16.bytes_per_activation


def _core(mixer: Mixer, part: str, context_length: int, batch_size: int, chunk_size: int) -> Cost:
    """The core of one mixer, with what it keeps."""
    if part == "step":
        moved = _core_numbers(mixer) * BF16.bytes_per_activation
        kept = mixer.step_cache_traffic(context_length) * BF16.kept(mixer)
        return Cost(batch_size * float(mixer.step_core_flops(context_length, PAPER)), batch_size * float(moved + kept))
    heads, d_qk, d_hv = (int(x) for x in (mixer.n_heads, mixer.d_qk, mixer.d_hv))
    shape = CellShape(
        batch_size=batch_size, context_length=context_length, n_heads=heads, d_qk=d_qk, d_hv=d_hv, chunk_size=chunk_size
    )
    kernels: Sequence[KernelCost]
    if isinstance(mixer, Attention):
        kernels = attention_kernel_costs(shape)
    else:
        kept = part == "training" and keeps_states(shape)
        kernels = cell_kernel_costs(shape, carried_tile=CARRIED_TILE, keep_states=kept)
    chain = [(each.flops, each.bytes) for each in kernels if part == "training" or each.stage == "forward"]
    if part == "prefill_layer":  # what is kept is written once more
        chain.append((0.0, batch_size * float(mixer.cache_numbers(context_length) * BF16.kept(mixer))))
    return Cost(sum(flops for flops, _ in chain), sum(moved for _, moved in chain), tuple(chain))


def _core_numbers(mixer: Mixer) -> float:
    """Numbers that the core of one token reads and writes besides what is kept."""
    gates = 0 if isinstance(mixer, Attention) else 2 * mixer.n_heads
    return float(mixer.qkv_width() + mixer.hidden_width + gates)
