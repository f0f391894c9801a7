"""Context lengths at which something changes hands: the core of attention, the core of the mLSTM, everything else.

Per token, the FLOPs of causal attention grow in proportion to T and all others are constant, so every crossing is one
division. An mLSTM costs the same per token at every whole number of chunks.
"""

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import count_flops
from companion.architectures.base import Architecture, Transformer
from companion.errors import InputError

_NEVER = float("nan")


def context_of_core_share(
    architecture: Architecture, share: float = 0.5, convention: str | Convention = PAPER
) -> float:
    """Context length at which the mixer core is this share of all training FLOPs.

    Parameters
    ----------
    architecture
        one configuration.
    share
        between 0 and 1, both excluded; 0.5: the core costs as much as everything else.
    convention
        a `Convention` or the name of one.

    Returns
    -------
    float
        T in tokens, not rounded; NaN if there is none: the share of an mLSTM does not depend on T, and `6ND` counts no
        core.

    Raises
    ------
    InputError
        if the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"share {share} is not between 0 and 1")
    slope, rest = _per_token(architecture, convention)
    return share / (1 - share) * rest / slope if slope else _NEVER


def context_of_equal_cores(
    transformer: Architecture, xlstm: Architecture, convention: str | Convention = PAPER
) -> float:
    """Context length above which the core of attention costs more per token than the core of the mLSTM.

    T in tokens, not rounded; NaN where the convention counts no core. The mLSTM is taken at whole chunks.
    """
    slope, _ = _per_token(transformer, convention)
    length = get_convention(convention).chunk_size
    core = count_flops(xlstm, length, convention).components.mixer_core / length
    return float(core / slope) if slope else _NEVER


def context_of_equal_cost(
    transformer: Architecture, xlstm: Architecture, convention: str | Convention = PAPER
) -> float:
    """Context length above which a token costs more in the Transformer than in the xLSTM, all components together.

    T in tokens, not rounded; NaN where the convention counts no attention. 0 if the Transformer costs more at any T.
    """
    slope, rest = _per_token(transformer, convention)
    length = get_convention(convention).chunk_size
    total = count_flops(xlstm, length, convention).train_flops_per_token
    return max(0.0, float((total - rest) / slope)) if slope else _NEVER


def _per_token(architecture: Architecture, convention: str | Convention) -> tuple[float, float]:
    """FLOPs per token: what grows with the context, per token of context, and what does not."""
    if architecture.name != Transformer.name:
        length = get_convention(convention).chunk_size
        return 0.0, float(count_flops(architecture, length, convention).train_flops_per_token)
    components = count_flops(architecture, 1, convention).components
    return float(components.mixer_core), float(components.total - components.mixer_core)
