"""On a CUDA GPU: after `companion kernels warm-up` calls compile nothing."""

import os
import sys
from pathlib import Path

import pytest
import torch
from progress import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

CALLS = """
import torch
from companion.kernels import MLSTMState, mlstm, mlstm_step

q, k = (torch.randn(2, 512, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
v = torch.randn(2, 512, 4, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
i, f = torch.randn(2, 512, 8, device="cuda").chunk(2, -1)
for normalizer_gradient in (True, False):
    mlstm(q, k, v, i, f, backend="triton", normalizer_gradient=normalizer_gradient).sum().backward()
with torch.no_grad():
    _, state = mlstm(q, k, v, i, f, backend="triton", return_state=True)
    gates = torch.randn(2, 8, device="cuda").chunk(2, -1)
    mlstm_step(*(x[:, 0].contiguous() for x in (q, k, v)), *gates, MLSTMState(*state), backend="triton")
torch.cuda.synchronize()
"""


def compiled(folder: Path) -> set[Path]:
    return set(folder.glob("*/*.cubin"))


def test_calls_compile_nothing_after_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "companion", "kernels", "warm-up", "--shape", "4x64x128"]
    found = run([*command, "--batch-size", "2", "--context-length", "512"], env=environment)
    assert found.returncode == 0, found.stderr
    assert len(before := compiled(tmp_path)) > 20
    found = run([sys.executable, "-c", CALLS], env=environment)
    assert found.returncode == 0, found.stderr
    assert {path.name for path in compiled(tmp_path) - before} == set()
