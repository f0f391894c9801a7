"""Several processes train one run: two on a CPU, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from study_runs import Counting, tiny_recipe

from companion.errors import InputError
from companion.study.train.group import Group
from companion.study.train.trainer import train

#: What each process runs: rank, a file to meet at, and a folder.
WORKER = """
import json, sys
import torch.distributed as dist
from study_runs import Counting, tiny_recipe
from companion.errors import InputError
from companion.study.train import train

rank, meeting, folder = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
corpus, faults = Counting(), []
shared = {"device": "cpu", "progress": False, "corpus": corpus}
for recipe, where in (
    (tiny_recipe(batch_size_seqs=7), folder),  # every process finds this
    (tiny_recipe(), meeting),  # process 0 alone finds that this is a file
):
    try:
        train(recipe, where, **shared)
    except InputError as error:
        faults.append(str(error))
stopped = train(tiny_recipe("hybrid"), folder, **shared, stop_after=9)
record = train(tiny_recipe("hybrid"), folder, **shared)
print(json.dumps({"faults": faults, "stopped": stopped["step"], "record": record, "asked": corpus.asked}))
dist.destroy_process_group()
"""


def by_two(folder: Path) -> list[dict[str, Any]]:
    """What two processes print."""
    rest = [str(folder / "meeting"), str(folder / "runs")]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = [subprocess.Popen([sys.executable, "-c", WORKER, str(rank), *rest], **pipes) for rank in range(2)]
    outputs = [process.communicate(timeout=240) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return [json.loads(output) for output, _ in outputs]


def test_two_processes_train_the_same_run(tmp_path: Path) -> None:
    found = by_two(tmp_path)
    assert found[0]["faults"] == found[1]["faults"]
    shares, file = found[0]["faults"]
    assert shares == "batch_size_seqs: 7 sequences cannot be shared equally by 2 processes"
    assert file.startswith(f"{tmp_path / 'meeting'}: cannot be written")
    assert [each["stopped"] for each in found] == [9, 9]
    record = found[0]["record"]
    assert record == found[1]["record"]
    alone = train(tiny_recipe("hybrid"), tmp_path / "alone", corpus=Counting(), device="cpu", progress=False)
    assert record["run_id"] == alone["run_id"]
    assert torch.tensor(record["curve"]["loss"]).allclose(torch.tensor(alone["curve"]["loss"]), rtol=0, atol=1e-5)
    norms = [torch.tensor(each["curve"]["grad_norm"]) for each in (record, alone)]
    assert norms[0].allclose(norms[1], rtol=1e-4)
    assert record["val_loss"] == pytest.approx(alone["val_loss"], abs=1e-5)
    numbers = sorted(n for each in found for first, number in each["asked"] for n in range(first, first + number))
    assert numbers == list(range(24 * 8))
    assert [each.name for each in (tmp_path / "runs").glob(f"{record['run_id']}*")] == [f"{record['run_id']}.json"]


def test_one_process_alone() -> None:
    group, values = Group.current(), torch.ones(2)
    group.average_(values)
    group.spread_([values])
    assert values.tolist() == [1.0, 1.0]
    assert group.any(True, torch.device("cpu"))
    assert not group.any(False, torch.device("cpu"))
    assert group.once(lambda: 5) == 5
    with pytest.raises(InputError, match="9 sequences cannot be shared equally by 2"):
        Group(0, 2).part(9)
