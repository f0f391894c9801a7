"""Every configuration of every Triton kernel compiles, for GPUs that are not here, and fits them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch
from progress import run

from companion.kernels.mlstm import configs
from companion.kernels.mlstm.ops import default_chunk_size

#: Shared memory that one program may take, bytes, by compute capability (CUDA C++ Programming Guide, technical
#: specifications): Hopper, Ada, Ampere. 8.6 has as little as 8.9.
SHARED_BYTES = {90: 232_448, 89: 101_376, 80: 166_912}
SMALLEST_SHARED_BYTES = min(SHARED_BYTES.values())
#: Above this a kernel keeps its tiles in memory rather than in registers.
SPILL_BYTES = 2048
#: Kernels without candidates that every task runs.
UNCHOSEN = ("gate_vectors", "state_exponents", "gate_weights", "gate_gradients", "carry_vectors", "step_scalars")
WIDE = {"d_qk": 256, "d_hv": 512}
TASKS = (
    {"capability": 90, **WIDE, "chunk_size": 128, "dtype": "bfloat16"},
    {"capability": 90, "d_qk": 128, "d_hv": 128, "chunk_size": 128, "dtype": "bfloat16", "keep": False},
    {"capability": 90, "d_qk": 64, "d_hv": 128, "chunk_size": 64, "dtype": "bfloat16", "described": True},
    {"capability": 90, "d_qk": 64, "d_hv": 128, "chunk_size": 64, "dtype": "float32"},
    {"capability": 89, **WIDE, "chunk_size": 128, "dtype": "bfloat16", "last": True},
    {"capability": 89, "d_qk": 128, "d_hv": 256, "chunk_size": 128, "dtype": "bfloat16", "last": True, "chosen": True},
    {"capability": 89, "d_qk": 64, "d_hv": 128, "chunk_size": 64, "dtype": "bfloat16", "last": True, "chosen": True},
    {"capability": 80, "d_qk": 64, "d_hv": 256, "chunk_size": 64, "dtype": "bfloat16"},
    {"capability": 80, "d_qk": 20, "d_hv": 36, "chunk_size": 16, "dtype": "float16", "plain": False},
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What `compile_kernels.py` finds for every task."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "TRITON_DUMP_PTXAS_LOG": "1"}
    script = Path(__file__).with_name("compile_kernels.py")
    found = run([sys.executable, "-u", str(script), json.dumps(TASKS)], env=environment)
    assert found.returncode == 0, found.stderr[-5_000:]
    records = [json.loads(line) for line in found.stdout.splitlines()]
    return [[record for record in records if task.items() <= record.items()] for task in TASKS]


@pytest.mark.parametrize("number", range(len(TASKS)), ids=lambda number: str(TASKS[number]))
def test_every_candidate_compiles_and_one_fits(number: int, compiled: list[list[dict[str, Any]]]) -> None:
    task, records = TASKS[number], compiled[number]
    assert [record for record in records if "error" in record] == []
    names = {record["function"] for record in records if record["configuration"] is None}
    fused = task["capability"] == 90 and task["dtype"] == "bfloat16" and task.get("plain", True)
    assert names == ({*UNCHOSEN, *(["segment_states"] if fused else [])} if not task.get("chosen") else set())
    sizes = {name: task[name] for name in ("d_qk", "d_hv", "chunk_size")}
    for kernel in configs.KERNELS:
        of_step = {"chunk_size": 1} if kernel == "step" else {}
        choices = configs.candidates(kernel, dtype=getattr(torch, str(task["dtype"])), **{**sizes, **of_step})
        found = [record for record in records if record.get("kernel") == kernel]
        if kernel == "states_and_outputs" and not fused:
            assert found == []
            continue
        assert [x["configuration"] for x in found] == [str(x) for x in choices][-1 if task.get("last") else 0 :]
        sizes_in_memory = [x["shared_bytes"] for x in found]
        assert max(sizes_in_memory) <= SHARED_BYTES[task["capability"]], kernel  # none in vain
        if kernel != "states_and_outputs":  # on Hopper only
            assert min(sizes_in_memory) <= SMALLEST_SHARED_BYTES, kernel
    assert 1024 < max(record["shared_bytes"] for record in records) <= SHARED_BYTES[task["capability"]]


def test_one_candidate_fits_ada(compiled: list[list[dict[str, Any]]]) -> None:
    """On Ada, which has least shared memory, in chunks of the operator's own choice; one kernel is Hopper's alone."""
    on_ada = [(task, found) for task, found in zip(TASKS, compiled, strict=True) if task["capability"] == 89]
    assert [(task["d_qk"], task["d_hv"]) for task, _ in on_ada] == [(256, 512), (128, 256), (64, 128)]
    for task, found in on_ada:
        assert task["chunk_size"] == default_chunk_size(int(str(task["d_qk"])), torch.bfloat16)
        fitting = {x["kernel"] for x in found if x["configuration"] and x["shared_bytes"] <= SHARED_BYTES[89]}
        assert fitting == set(configs.KERNELS) - {"states_and_outputs"}


def test_registers_suffice(compiled: list[list[dict[str, Any]]]) -> None:
    """On Hopper, for which the lists of configurations are made; elsewhere kernels may be slow."""
    on_hopper = [x for task, found in zip(TASKS, compiled, strict=True) if task["capability"] == 90 for x in found]
    assert sum("spill_bytes" in x for x in on_hopper) > 20
    assert [x for x in on_hopper if x.get("spill_bytes", 0) > SPILL_BYTES] == []


def test_replays_pass_what_kernels_take(compiled: list[list[dict[str, Any]]]) -> None:
    """Replays pass parameters by themselves, not by Triton's launcher, and lay them out as these kernels declare."""
    records = [x for found in compiled for x in found]
    assert len({x["function"] for x in records}) > 12
    assert [x for x in records if x["prepared"] != x["parameters"]] == []
