"""A small head of an mLSTM in NumPy: inputs, the states of the recurrence, and the parallel form to check it against.

The formulas are those of arXiv 2405.04517, with q scaled by 1/√d_qk as in arXiv 2503.13427.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Input gates of xLSTM 7B start near here: a fresh cell writes little (arXiv 2503.13427). The example writes more.
_INPUT_BIAS, _FORGET_BIAS = -1.0, 2.0


def example_inputs(num_tokens: int, d_qk: int, d_hv: int, seed: int = 0) -> tuple[Array, Array, Array, Array, Array]:
    """Random q, k (num_tokens, d_qk), v (num_tokens, d_hv) and pre-activations of both gates, i and f (num_tokens,).

    q is scaled by 1/√d_qk already.
    """
    draw = np.random.default_rng(seed)
    q, k = draw.normal(size=(2, num_tokens, d_qk))
    v = draw.normal(size=(num_tokens, d_hv))
    i, f = draw.normal(size=(2, num_tokens))
    return q / np.sqrt(d_qk), k, v, i + _INPUT_BIAS, f + _FORGET_BIAS


def states_of(k: Array, v: Array, i: Array, f: Array) -> Array:
    """The matrix memory after every token, without the stabilizer's scale, shape (num_tokens, d_qk, d_hv)."""
    forget, write = 1 / (1 + np.exp(-f)), np.exp(i)
    states = np.zeros((len(k), k.shape[1], v.shape[1]))
    for t in range(len(k)):
        states[t] = (forget[t] * states[t - 1] if t else 0.0) + write[t] * np.outer(k[t], v[t])
    return states


def difference_from_parallel(q: Array, k: Array, v: Array, i: Array, f: Array, outputs: Sequence[Any]) -> float:
    """How far outputs of the recurrence lie from those of the parallel form: ‖out − ref‖/‖ref‖.

    In the parallel form every token weighs all tokens up to itself, as attention does, with a decay for its softmax.
    """
    decay = np.cumsum(-np.logaddexp(0, -f))
    weights = np.where(np.tri(len(q), dtype=bool), decay[:, None] - decay[None, :] + i[None, :], -np.inf)
    scores = np.exp(weights) * (q @ k.T)
    reference = scores @ v / np.maximum(np.abs(scores.sum(axis=1)), 1.0)[:, None]
    return float(np.linalg.norm(np.asarray(outputs) - reference) / np.linalg.norm(reference))
