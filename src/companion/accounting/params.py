"""Parameter counts from shapes (arXiv 2510.02228, appendix on accounting).

N counts everything that is trained: embedding, unembedding, norms, gate biases.
"""

from typing import Any

from companion.accounting.breakdown import Breakdown
from companion.architectures.base import XLSTM, Architecture


def count_params(architecture: Architecture) -> Breakdown:
    """Parameters of every component, summed over the layers.

    Parameters
    ----------
    architecture
        shapes, as integers or as arrays that broadcast together.

    Returns
    -------
    Breakdown
        counts; `total` is N.

    Notes
    -----
    Per block, with d = `d_model`, H = `n_heads`: q, k, v have `d·H·(2·d_qk + d_hv)` weights (with grouped heads
    `d·H·d_qk + d·n_kv_heads·(d_qk + d_hv)`) and the output projection `d·H·d_hv`. An mLSTM layer adds
    `2·d·H + 2·H` for its two gates with bias, and `d·H·d_hv` for the output gate. SwiGLU has `3·d·d_ff`. A Transformer
    block has two norms of width d, and `2·d_qk` more weights with `qk_norm`; an xLSTM block has a third norm, over the
    `H·d_hv` hidden states. Embedding and unembedding have `V·d` each; a shared matrix counts once, as
    unembedding, where it is multiplied with.
    """
    a: Any = architecture
    d, heads, hidden = a.d_model, a.n_heads, a.n_heads * a.d_hv
    projections = d * qkv_width(a) + d * hidden
    norms = 2 * d
    output_gate = 0 * d  # an array where the shapes are arrays
    if a.name == XLSTM.name:
        projections = projections + 2 * d * heads + 2 * heads
        norms = norms + hidden
        output_gate = d * hidden
    else:
        norms = norms + a.qk_norm * 2 * a.d_qk
    return Breakdown(
        embedding=(1 - a.tied_embeddings) * a.vocab_size * d,
        mixer_projections=a.n_layers * projections,
        mixer_core=0 * d,
        output_gate=a.n_layers * output_gate,
        ffn=a.n_layers * 3 * d * a.d_ff,
        norms=a.n_layers * norms + d,
        unembedding=a.vocab_size * d,
    )


def qkv_width(architecture: Any) -> Any:
    """Numbers in the queries, keys and values of one token and layer: all heads, or all groups for keys and values."""
    a = architecture
    kv_heads = a.n_heads if a.name == XLSTM.name else a.n_kv_heads
    return a.n_heads * a.d_qk + kv_heads * (a.d_qk + a.d_hv)


def num_params(architecture: Architecture) -> Any:
    """N: all parameters of the model, an integer or an array of integers."""
    return count_params(architecture).total
