"""Small things that a launch needs on the host."""

import os

import torch

Tensor = torch.Tensor
#: The interpreter multiplies bfloat16 as if its bits were integers: there every product runs in float32.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def cdiv(a: int, b: int) -> int:
    """a/b rounded up. Triton's own, and its next power of two, take as long on the host as a third of a launch."""
    return -(-a // b)


def strides(*tensors: Tensor, axes: int = 3) -> tuple[tuple[int, ...], ...]:
    """Strides of batch, token and head (of a single token batch and head, two axes) of each tensor."""
    return tuple(x.stride()[:axes] for x in tensors)


def power_of_2(size: int, least: int = 1) -> int:
    """The least power of two that is not smaller than either."""
    return max(least, 1 << (size - 1).bit_length())
