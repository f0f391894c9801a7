"""Terms of an inference time: which ones an architecture has, and their sizes for a model, a context and a batch.

`companion.inference.runtime_model` fits what one unit of each costs. The terms of a mixer (`terms_of`) describe the
kernels that the authors timed, of which attention's reads a cache in waves of heads. `split_terms` describe kernels
that split the cache of every head over the whole device, as flash-decoding does: then its bytes count. A hybrid has
terms of both kinds of layers.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, check_batch_size, count_step
from companion.accounting.params import over_layers
from companion.architectures import ARCHITECTURES, Architecture, Mixer, Term
from companion.architectures.attention import CORE
from companion.architectures.mixer import (
    ACTIVATIONS,
    BATCHED,
    CACHE,
    FLOPS,
    LAYERS,
    PASSES,
    PRODUCTS,
    STATE,
    TOKEN_LAYERS,
    WEIGHTS,
)
from companion.errors import NotApplicable
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.timings import Quantity, by_model, middle_context
from companion.numeric import Numeric, Values

Array = NDArray[np.float64]


def terms_of(architecture: str, quantity: str) -> tuple[Term, ...]:
    """The terms of a time of an architecture, from its mixer.

    Raises
    ------
    NotApplicable
        if its mixer names none: nobody has timed it.
    """
    of = ARCHITECTURES.get(architecture)
    known = {} if of is None or of.usual_attention_every is not None else of.mixer_class.runtime_terms
    if quantity not in known:
        there = ", ".join(name for name, each in ARCHITECTURES.items() if terms_known(each))
        raise NotApplicable(
            f"runtime model of {architecture}, {quantity}: no terms are known; there are models of {there}"
        )
    return known[quantity]


def terms_known(architecture: type[Architecture]) -> bool:
    """Whether measured times of an architecture can be fitted: one kind of layer, whose mixer names terms."""
    return architecture.usual_attention_every is None and bool(architecture.mixer_class.runtime_terms)


def split_terms(architecture: Architecture, quantity: Quantity) -> tuple[Term, ...]:
    """The terms of a time of a model whose kernels split every cache over the device; of any mixers."""
    kept = {mixer.kept_as for mixer, _ in architecture.layers}
    if quantity == "ttft":
        return (
            (PRODUCTS, CORE, TOKEN_LAYERS, LAYERS, PASSES) if "cache" in kept else (FLOPS, TOKEN_LAYERS, LAYERS, PASSES)
        )
    moved = [term for name, term in (("cache", CACHE), ("state", STATE)) if name in kept]
    return (WEIGHTS, *moved, ACTIVATIONS, LAYERS, BATCHED)


def features(
    quantity: Quantity,
    architecture: Architecture,
    context_length: Numeric,
    batch_size: Numeric,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
    *,
    split_cache: bool = False,
) -> dict[str, Values]:
    """Size of every term in its own unit; arrays broadcast.

    Parameters
    ----------
    quantity
        `ttft`: a prompt of `context_length` tokens; `step_time`: one token more at that context.
    architecture
        an `Architecture`, or a member of a family; with one kind of layer, unless `split_cache`.
    context_length, batch_size
        T in tokens, B in sequences.
    hardware
        whose number of multiprocessors makes the waves.
    precision
        bytes per number, of step times.
    split_cache
        sizes of `split_terms`, without those that only one mixer has.

    Raises
    ------
    NotApplicable
        for a hybrid, unless `split_cache`: its times are not a sum of the terms of one mixer.
    """
    a = architecture
    if len(a.layers) > 1 and not split_cache:
        raise NotApplicable(f"runtime model of {a.name}: no terms are known for a hybrid of {_kinds(a)}")
    T, B = np.asarray(context_length, dtype=float)[()], check_batch_size(batch_size)
    layers, ones = a.n_layers + 0.0 * T * B, 1.0 + 0.0 * T * B * a.n_layers
    if quantity == "ttft":
        forward = forward_flops(a, T, PAPER)
        scores = _over(a, "cache", lambda mixer: mixer.core_flops(T, PAPER))
        flops = B * (forward.total - forward.unembedding)
        return {
            "flops": flops,
            "product_flops": flops - B * scores,
            "attention_flops": B * scores + 0.0 * T * B,
            "token_layers": B * T * a.n_layers,
            "layers": layers,
            "passes": ones,
        }
    step = count_step(a, T, B, precision=precision)
    found = {
        "weight_bytes": step.traffic.weights + 0.0 * T * B,
        "activation_bytes": step.traffic.activations + 0.0 * T * B,
        "layers": layers,
        "batched_layers": layers * (B > 1),
    }
    if not split_cache:
        ((mixer, number),) = a.layers
        own = mixer.step_features(T, B, get_hardware(hardware).num_multiprocessors)
        return found | {"state_bytes": step.traffic.cache} | {name: number * size for name, size in own.items()}
    for kind in ("cache", "state"):
        moved = _over(a, kind, lambda mixer: mixer.step_cache_traffic(T) * precision.kept(mixer))
        found[f"{kind}_bytes"] = B * moved + 0.0 * T * B
    return found


def _over(a: Architecture, kind: str, of: Callable[[Mixer], Numeric]) -> Numeric:
    """Sum over the layers whose mixers keep a cache, or a state; 0 without such layers."""
    return over_layers(a, lambda mixer, number: number * of(mixer) if mixer.kept_as == kind else 0.0)


def _kinds(architecture: Architecture) -> str:
    return " and ".join(mixer.name for mixer, _ in architecture.layers)


def features_of_rows(
    rows: pd.DataFrame, terms: Sequence[Term], quantity: Quantity, hardware: Hardware, *, split_cache: bool = False
) -> Array:
    """Sizes of the terms for every row, shape (n, k)."""
    design = np.zeros((len(rows), len(terms)))
    context = rows["prefill_length"].to_numpy(dtype=float) if quantity == "ttft" else middle_context(rows)
    batch = rows["batch_size"].to_numpy()
    for model, at in by_model(rows):
        sizes = features(quantity, model, context[at], batch[at], hardware, split_cache=split_cache)
        design[at] = np.stack([np.broadcast_to(sizes[term.name], len(at)) for term in terms], axis=1)
    return design
