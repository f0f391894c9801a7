"""Terms of an inference time: which ones an architecture has, and their sizes for a model, a context and a batch.

`companion.inference.runtime_model` fits what one unit of each costs.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, check_batch_size, count_step
from companion.architectures import ARCHITECTURES, Architecture, Term
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


def features(
    quantity: Quantity,
    architecture: Architecture,
    context_length: Numeric,
    batch_size: Numeric,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
) -> dict[str, Values]:
    """Size of every term in its own unit; arrays broadcast.

    Parameters
    ----------
    quantity
        `ttft`: a prompt of `context_length` tokens; `step_time`: one token more at that context.
    architecture
        an `Architecture`, or a member of a family; with one kind of layer.
    context_length, batch_size
        T in tokens, B in sequences.
    hardware
        whose number of multiprocessors makes the waves.
    precision
        bytes per number, of step times.

    Raises
    ------
    NotApplicable
        for a hybrid: its times are not a sum of the terms of one mixer.
    """
    a = architecture
    if len(a.layers) > 1:
        raise NotApplicable(f"runtime model of {a.name}: no terms are known for a hybrid of {_kinds(a)}")
    T, B = np.asarray(context_length, dtype=float)[()], check_batch_size(batch_size)
    layers, ones = a.n_layers + 0.0 * T * B, 1.0 + 0.0 * T * B * a.n_layers
    if quantity == "ttft":
        forward = forward_flops(a, T, PAPER)
        products = B * (forward.total - forward.unembedding - forward.mixer_core)
        return {
            "flops": products + B * forward.mixer_core,
            "product_flops": products,
            "attention_flops": B * forward.mixer_core,
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
    ((mixer, number),) = a.layers
    own = mixer.step_features(T, B, get_hardware(hardware).num_multiprocessors)
    return found | {"state_bytes": step.traffic.cache} | {name: number * size for name, size in own.items()}


def _kinds(architecture: Architecture) -> str:
    return " and ".join(mixer.name for mixer, _ in architecture.layers)


def features_of_rows(rows: pd.DataFrame, architecture: str, quantity: Quantity, hardware: Hardware) -> Array:
    """Sizes of the terms for every row, shape (n, k)."""
    terms = terms_of(architecture, quantity)
    design = np.zeros((len(rows), len(terms)))
    context = rows["prefill_length"].to_numpy(dtype=float) if quantity == "ttft" else middle_context(rows)
    batch = rows["batch_size"].to_numpy()
    for model, at in by_model(rows):
        sizes = features(quantity, model, context[at], batch[at], hardware)
        design[at] = np.stack([np.broadcast_to(sizes[term.name], len(at)) for term in terms], axis=1)
    return design
