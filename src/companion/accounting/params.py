"""Parameter counts from shapes (arXiv 2510.02228, appendix on accounting).

N counts everything that is trained: embedding, unembedding, norms, gate biases.
"""

from collections.abc import Callable

from companion.accounting.breakdown import Breakdown
from companion.architectures import Architecture, Mixer
from companion.numeric import Numeric


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
    `H·d_hv` hidden states. A block without feed-forward network has one norm of width d less. Embedding and
    unembedding have `V·d` each; a shared matrix counts once, as unembedding, where it is multiplied with.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> count_params(preset("xlstm", "7b")).unembedding
    206045184
    """
    a, d = architecture, architecture.d_model
    branches = block_branches(a)
    return Breakdown(
        embedding=(1 - a.tied_embeddings) * a.vocab_size * d,
        mixer_projections=over_layers(a, lambda mixer, number: number * mixer.projection_params(d)),
        mixer_core=over_layers(a, lambda mixer, number: number * mixer.core_params(d)),
        output_gate=over_layers(a, lambda mixer, number: number * mixer.output_gate_params(d)),
        ffn=a.n_layers * 3 * d * a.d_ff,
        norms=over_layers(a, lambda mixer, number: number * (branches * d + mixer.norm_params())) + d,
        unembedding=a.vocab_size * d,
    )


def over_layers(architecture: Architecture, part: Callable[[Mixer, Numeric], Numeric]) -> Numeric:
    """Sum of `part(mixer, number)` over the layers of every kind; `number` is how many there are."""
    first, *others = (part(mixer, number) for mixer, number in architecture.layers)
    for other in others:
        first = first + other
    return first


def block_branches(architecture: Architecture) -> Numeric:
    """Residual branches of a block, each with a norm before it: 2, or 1 without feed-forward network."""
    return 1 + 1 * (architecture.d_ff != 0)


def num_params(architecture: Architecture) -> Numeric:
    """N: all parameters of the model, an integer or an array of integers.

    Examples
    --------
    >>> from companion.architectures import preset
    >>> num_params(preset("xlstm", "7b"))
    6865424896
    """
    return count_params(architecture).total
