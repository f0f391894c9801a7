"""Tensors here are small: threads of torch would only wait for each other, and for the other workers of the suite."""

import pytest
import torch

from companion.kernels.mlstm import checks

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_gpu_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests pretend to have GPUs, each its own: what one found is not kept for the next."""
    monkeypatch.setattr(checks, "_FIT_GPUS", set())
