"""On a CUDA GPU: a small laboratory that trains, from its rules to its score."""

from pathlib import Path

import pytest
import torch

from companion.errors import InputError
from companion.hardware import known_hardware
from companion.study.laboratory import Ask, Prediction, Trainer, new_laboratory, open_laboratory, training_rules
from companion.study.laboratory.predictions import target_tokens
from companion.study.train import read_record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
ASK = Ask(architecture="transformer", num_params=350_000, num_tokens=800_000, learning_rate=6e-3, batch_size_seqs=16)


@pytest.mark.parametrize(("unit", "budget"), [("flops", 1e13), ("gpu_hours", 0.1)])
def test_a_small_laboratory(tmp_path: Path, unit: str, budget: float) -> None:
    sizes = ["0.3m", "0.6m"]
    rules = training_rules("source", sizes=sizes, context_length=256, unit=unit, budget=budget, target_flops=4e12)
    assert rules.training is not None
    assert rules.training.device == "cuda"
    assert rules.hardware in known_hardware()
    lab = new_laboratory(tmp_path / "lab", rules)
    answers = lab.ask([ASK, Ask(**ASK.as_dict() | {"architecture": "xlstm"})])
    for answer in answers:
        assert answer.outcome.val_loss is not None
        assert answer.outcome.val_loss < 6.9  # ln 1024 is 6.93
        assert answer.outcome.train_flops == pytest.approx(lab.cost(answer.ask).train_flops)
        assert 0 < answer.outcome.gpu_hours <= (lab.cost(answer.ask).gpu_hours if unit == "gpu_hours" else 1)
    records = [read_record(path) for path in (tmp_path / "lab" / "training").glob("*.json")]
    assert [record["num_gpus"] for record in records] == [1, 1]
    assert all(each.repeated for each in open_laboratory(tmp_path / "lab").ask([ASK]))
    tokens = target_tokens(rules, ASK.architecture, ASK.num_params, ASK.batch_size_seqs)
    chosen = Ask(**ASK.as_dict() | {"num_tokens": tokens})
    lab.predict(Prediction(ask=chosen, loss=6.0, low=5.0, high=6.9))
    final = lab.reveal()
    assert final.val_loss is not None
    assert lab.score().covered == (5.0 <= final.val_loss <= 6.9)
    assert isinstance(lab.backend, Trainer)
    floor = lab.backend.loss_floor(lab.prediction().ask)
    assert floor is not None
    assert floor[0] < final.val_loss


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    rules = training_rules("source", sizes=["55m", "87m"], context_length=4096, budget=1e18, target_flops=1e18)
    lab = new_laboratory(tmp_path / "lab", rules)
    with pytest.raises(InputError, match=r"batch_size_seqs 4096: a run of .* needs about"):
        lab.ask([Ask(**ASK.as_dict() | {"num_params": 87_000_000, "num_tokens": 1.7e8, "batch_size_seqs": 4096})])
    assert not (tmp_path / "lab" / "training").exists()
    assert lab.state().spent == 0
