"""Precise gates in Triton kernels: weights from exponents, and how stretches of a sequence are joined in a scan."""

import triton
import triton.language as tl


@triton.jit
def weight(exponent):
    """exp of a difference of exponents, for a vector.

    Exponents are float64 unless q, k, v are bfloat16: sums of log f over a chunk reach the thousands, where float32
    would leave a difference three digits.
    """
    return tl.exp(exponent).to(tl.float32)


@triton.jit
def pair_weight(exponent):
    """The same for a matrix of pairs, where exp in float64 would cost more than the products."""
    return tl.exp(exponent.to(tl.float32))


@triton.jit
def log_sigmoid(x):
    """log σ(x) = min(x, 0) − log(1 + e^−|x|), the logarithm by its series in z = e/(2+e).

    log(1 + e) in float32 loses small e, and with it the decay of an open gate over many tokens. With z ≤ 1/3 eight
    terms of 2·artanh(z) reach float32's precision.
    """
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)
    y = z * z
    series = 1.0 / 9 + y * (1.0 / 11 + y * (1.0 / 13 + y / 15))
    series = 1.0 + y * (1.0 / 3 + y * (1.0 / 5 + y * (1.0 / 7 + y * series)))
    return tl.minimum(x, 0.0) - 2.0 * z * series


@triton.jit
def sigmoid_of_minus(x):
    """σ(−x), the derivative of log σ, without overflow for large |x|."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, e, 1.0) / (1.0 + e)


@triton.jit
def larger(a, b):
    """For cumulative maxima."""
    return tl.maximum(a, b)


@triton.jit
def after(decay_1, peak_1, decay_2, peak_2):
    """Two stretches of tokens one after the other: m ↦ max(m + decay, peak) composed; associative."""
    return decay_1 + decay_2, tl.maximum(peak_1 + decay_2, peak_2)


@triton.jit
def one_then_other(keep_1, change_1, keep_2, change_2):
    """Two chunks one after the other: x ↦ keep x + change composed; associative."""
    return keep_1 * keep_2, keep_2 * change_1 + change_2
