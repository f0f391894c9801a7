"""The same bits from the same run: what torch must be asked for, and given back afterwards. Needs torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Of cuBLAS: with another workspace, or none named, two streams may choose other kernels for the same product.
_VARIABLE, _WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def deterministic() -> Iterator[None]:
    """Within, torch runs deterministic algorithms alone; an operation that has none raises a RuntimeError.

    Attention on a GPU then takes the flash kernels with an ordered backward pass and not those of cuDNN, and gradients
    of the embedding are added in order. Settings are those from before afterwards.

    Notes
    -----
    The same bits come from the same machine, versions and number of threads: another GPU adds in another order.

    Examples
    --------
    >>> with deterministic():
    ...     torch.are_deterministic_algorithms_enabled()
    True
    """
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    variable = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = _WORKSPACE
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it finds faults of kernels, and costs a pass each
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        if variable is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = variable
