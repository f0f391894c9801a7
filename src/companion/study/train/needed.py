"""What a run will need: memory and time, from shapes alone. No torch.

Activations are counted by what autograd keeps of an eager step under autocast; compiled code keeps fewer of them. The
coefficients are a count of tensors on paper. Runs of the project's own study (H200, steps in a CUDA graph) that
followed one of equal shapes took 0.76 to 1.00 times the predicted bytes, not counting the driver and the libraries.

A step takes the time of its FLOPs, that of its activations through the memory, and a latency a layer: small models are
far from the peak FLOP/s, as their matrices are narrow and their kernels short.
"""

import csv
import math
import re
from functools import cache
from typing import NamedTuple

from companion.architectures import Attention
from companion.errors import InputError
from companion.paths import data_dir
from companion.study.train.recipe import Recipe

#: Bytes a weight: float32 weight, gradient and two moments, and a bfloat16 copy that autocast makes.
WEIGHT_BYTES = 4 + 4 + 4 + 4 + 2
#: Bytes of a number that autograd keeps of the blocks: bfloat16.
ACTIVATION_BYTES = 2
#: Share of these numbers that compiled code keeps: it computes cheap ones again in the backward pass.
COMPILED_SHARE = 0.8
#: Numbers a token and layer: of width `d_model` the inputs and outputs of two norms and of the two branches; of width
#: `d_ff` the two products before SwiGLU, their activation and what the last matrix reads.
RESIDUAL_WIDTHS, FFN_WIDTHS = 6, 4
#: Times that queries, keys and values are kept of attention: as projected, and as turned to their positions; times that
#: its hidden states are kept.
ATTENTION_QKV_TIMES, HIDDEN_TIMES = 2, 2
#: Of an mLSTM: queries, keys, values; hidden states before and after the norm, the output gate and their product.
MLSTM_QKV_TIMES, MLSTM_HIDDEN_TIMES = 1, 5
#: Bytes a logit: float32 log-probabilities and two float32 gradients at once, and a bfloat16 one.
LOGIT_BYTES = 4 + 4 + 4 + 2
#: What the context of CUDA, cuBLAS and the library of kernels take, bytes.
FIXED_BYTES = 2**29
#: Of a deterministic step in a CUDA graph: the share of the peak FLOP/s at which its FLOPs take their time, how many
#: times what autograd keeps goes through the memory, and seconds of latency a layer. What they predict is within 12 %
#: of the recorded steps of 0.3m to 17m on one H200 (`data/benchmarks/study.jsonl`, T = 1024).
FLOPS_SHARE, MEMORY_TIMES, LAYER_SECONDS = 0.44, 3.9, 0.38e-3
#: Seconds before the first step: compilation and capture, the median of recorded runs.
START_SECONDS = 4.0
#: Names of GPUs as drivers print them, and in `data/hardware.csv`; the first that matches.
_DEVICES = (
    (r"H200", "h200-sxm"),
    (r"H100 PCIe", "h100-pcie"),
    (r"H100 80GB HBM3", "h100-sxm"),
    (r"A100-SXM4-80GB", "a100-sxm"),
    (r"L40S", "l40s"),
    (r"RTX 4090(?! D| Laptop)", "rtx-4090"),
    (r"MI300X", "mi300x"),
)


def predicted_memory_bytes(recipe: Recipe, micro_batch: int | None = None, num_gpus: int = 1) -> float:
    """Bytes that a GPU needs for a run, about.

    Parameters
    ----------
    micro_batch
        sequences of one forward and backward pass; the whole part of the batch if not given.
    num_gpus
        that share the batch.

    Examples
    --------
    >>> from companion.architectures import make_architecture
    >>> a = make_architecture("xlstm", d_model=512, n_layers=8, n_heads=4, vocab_size=1024)
    >>> run = {"corpus": "source", "context_length": 1024, "batch_size_seqs": 64, "train_steps": 100}
    >>> recipe = Recipe(architecture=a, **run, learning_rate=1e-3)
    >>> predicted_memory_bytes(recipe) > 2 * predicted_memory_bytes(recipe, micro_batch=16)
    True
    """
    sequences = micro_batch or -(-recipe.batch_size_seqs // num_gpus)
    return float(WEIGHT_BYTES * recipe.num_params + _activation_bytes(recipe, sequences) + FIXED_BYTES)


class StepSeconds(NamedTuple):
    """Predicted seconds of a step by what takes them: FLOPs, activations through the memory, latency."""

    computing: float
    moving: float
    latency: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.computing + self.moving + self.latency


def predicted_step(recipe: Recipe, peak_flops_per_s: float, peak_bytes_per_s: float) -> StepSeconds:
    """Seconds of a step on one GPU.

    Parameters
    ----------
    peak_flops_per_s, peak_bytes_per_s
        of the GPU, as in `data/hardware.csv`.

    Raises
    ------
    InputError
        if a peak is not positive.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> run = {"corpus": "source", "context_length": 2048, "batch_size_seqs": 64, "train_steps": 1000}
    >>> recipe = Recipe(architecture=preset("transformer", "160m"), **run, learning_rate=1e-3)
    >>> f"{predicted_step(recipe, 989.5e12, 4.8e12).total:.2f} s"
    '0.34 s'
    """
    for name, value in (("peak_flops_per_s", peak_flops_per_s), ("peak_bytes_per_s", peak_bytes_per_s)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}: {value} is not above 0 and finite")
    return StepSeconds(
        computing=recipe.train_flops / recipe.train_steps / (FLOPS_SHARE * peak_flops_per_s),
        moving=MEMORY_TIMES * _activation_bytes(recipe, recipe.batch_size_seqs) / peak_bytes_per_s,
        latency=LAYER_SECONDS * int(recipe.architecture.n_layers),
    )


def peak_flops_of(device: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by the name that its driver prints; None where the table has none.

    Examples
    --------
    >>> peak_flops_of("NVIDIA H200")
    989500000000000.0
    >>> peak_flops_of("cpu") is None
    True
    """
    name = hardware_of(device)
    return None if name is None else _peaks()[name]


def hardware_of(device: str) -> str | None:
    """Row of `data/hardware.csv` of a GPU by the name that its driver prints; None where the table has none.

    Examples
    --------
    >>> hardware_of("NVIDIA H200"), hardware_of("cpu")
    ('h200-sxm', None)
    """
    return next((name for pattern, name in _DEVICES if re.search(pattern, device)), None)


@cache
def _peaks() -> dict[str, float]:
    """By the names of the table. `companion.hardware` checks it with pandera, which a GPU machine may lack."""
    with (data_dir() / "hardware.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: float(row["peak_flops_per_s"]) for row in csv.DictReader(file)}


def _activation_bytes(recipe: Recipe, sequences: int) -> float:
    """Bytes that autograd keeps of so many sequences, the logits and their gradients among them."""
    kept = COMPILED_SHARE * ACTIVATION_BYTES * _kept_numbers(recipe)
    return sequences * recipe.context_length * (kept + LOGIT_BYTES * int(recipe.architecture.vocab_size))


def _kept_numbers(recipe: Recipe) -> float:
    """Numbers that autograd keeps a token, over all layers."""
    a = recipe.architecture
    total = 0.0
    for mixer, number in a.layers:
        hidden = mixer.n_heads * mixer.d_hv
        if isinstance(mixer, Attention):
            qkv = mixer.n_heads * mixer.d_qk + mixer.n_kv_heads * (mixer.d_qk + mixer.d_hv)
            core = ATTENTION_QKV_TIMES * qkv + HIDDEN_TIMES * hidden
        else:
            core = MLSTM_QKV_TIMES * (2 * mixer.n_heads * mixer.d_qk + hidden) + MLSTM_HIDDEN_TIMES * hidden
        total += float(number * (core + RESIDUAL_WIDTHS * a.d_model + FFN_WIDTHS * a.d_ff))
    return total
