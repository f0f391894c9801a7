"""What a longer context does to prices: the two forces on N\\*, and where attention takes half of the compute."""

from collections.abc import Sequence

import numpy as np

from companion.fitting.context.prediction import Explanation


def price_of_context(
    explanation: Explanation, size: float, new_size: float, context_length: float
) -> tuple[float, float, float]:
    """What the price of a token does to the optimum of a law, from the context of the law to another one.

    Parameters
    ----------
    size, new_size
        N\\* at the context of the law and at the other one.
    context_length
        the other one, tokens.

    Returns
    -------
    dearer
        factor on the FLOP per token of the old optimum.
    by_price
        factor on N\\* if the price of every model rose by `dearer`: dearer^(-beta/(alpha + beta)).
    elasticity
        d ln F / d ln N at the new optimum, F the training FLOP per token.
    """
    family, law, convention = explanation.family, explanation.law_fit.law, explanation.convention
    width = family.width_of(size)
    before, after = (family.flops_per_token(width, t, convention) for t in (explanation.fit_context, context_length))
    dearer = float(after / before)
    of_size, of_price = family.elasticities(np.log(family.width_of(new_size)), context_length, convention)
    return dearer, dearer ** (-law.beta / (law.alpha + law.beta)), float(of_price / of_size)


def context_of_half(core_shares: Sequence[float], context_lengths: Sequence[float]) -> float:
    """Context at which a share that rises with the context passes one half, interpolated in log2; NaN if it never does.

    Interpolated is the logit of the share, which is nearly linear in log2 T.
    """
    shares = np.asarray(core_shares, dtype=float)
    if not shares.max() > 0.5:
        return float("nan")
    return float(2 ** np.interp(0, np.log(shares / (1 - shares)), np.log2(context_lengths)))
