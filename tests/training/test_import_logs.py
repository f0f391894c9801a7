"""Logs of many kinds as the two tables, and what is left out of them."""

import gzip
import hashlib
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import MAP, SETTINGS, event_file, failure, lines_of, one, panel, records, write, written

from companion.accounting import num_params, train_flops
from companion.architectures import make_architecture
from companion.training.import_ import import_logs
from companion.training.import_.run_log import HISTORY, RunLog, make_history
from companion.training.import_.summarize import summarize, table_of

# ---- one run in every format ---------------------------------------------------------------------


def test_every_format_gives_the_same_tables(tmp_path: Path) -> None:
    rows = records()
    files: dict[str, Any] = {
        "plain": write(tmp_path, "plain.csv", rows),
        "tsv": write(tmp_path, "tabs.tsv", pd.DataFrame(rows).to_csv(sep="\t", index=False)),
        "packed": write(tmp_path, "packed.csv.gz", gzip.compress(pd.DataFrame(rows).to_csv(index=False).encode())),
        "lines": write(tmp_path, "lines.jsonl", lines_of(rows)),
        "list": write(tmp_path, "list.json", json.dumps(rows)),
        "nested": write(
            tmp_path, "nested.json", json.dumps({"name": "r", "config": {"model": SETTINGS}, "history": rows})
        ),
        "events": write(tmp_path, "events.out.tfevents.1.somehost", event_file(rows)),
        "tensors": write(tmp_path, "events.out.tfevents.2.somehost", event_file(rows, tensor=True)),
        "panels": [
            write(tmp_path, f"{metric}.csv", panel(rows, metric, "r"))
            for metric in ("train_loss", "val_loss", "grad_norm", "step_time_s")
        ],
    }
    expected = None
    for name, paths in files.items():
        mapping = {} if name == "nested" else MAP
        logs, curves = written(import_logs(paths, mapping), tmp_path)
        logs, curves = logs.drop(columns="run"), curves.drop(columns="run")
        if expected is None:
            expected = logs, curves
            assert len(curves) == 40
            assert logs.loc[0, ["step_time_s", "val_loss", "train_loss", "last_logged_step"]].tolist() == [
                0.25,
                4.1,
                4,
                400,
            ]
            assert logs["num_tokens"][0] == 8 * 512 * 400
            assert logs["train_flops"][0] == pytest.approx(6e6 * 8 * 512 * 400, rel=1e-5)
            continue
        pd.testing.assert_frame_equal(logs, expected[0], check_like=True, obj=name)
        pd.testing.assert_frame_equal(curves, expected[1], obj=name)


def test_a_step_time_by_expression_with_a_name_that_has_a_space(tmp_path: Path) -> None:
    rows = [{"iter": r["step"], "loss": r["train_loss"], "time ms": 250} for r in records()]
    imported = import_logs(write(tmp_path, "a.csv", rows), MAP | {"step_time_s": "time ms / 1000"})
    assert one(imported)["step_time_s"] == 0.25
    assert imported.mapping["train_loss"] == "column 'loss'"


def test_step_times_from_wall_time_where_none_was_logged(tmp_path: Path) -> None:
    rows = [{"step": r["step"], "loss": r["train_loss"], "_runtime": 100 + 0.5 * r["step"]} for r in records()]
    imported = import_logs(write(tmp_path, "a.csv", rows), MAP)
    assert one(imported)["step_time_s"] == 0.5
    assert any("differences of wall time" in note for note in imported.notes)


def test_presets_read_what_their_trainers_write(tmp_path: Path) -> None:
    steps = range(10, 401, 10)
    history: list[dict[str, Any]] = [
        {"step": s, "loss": 6 - s / 200, "grad_norm": 0.5, "epoch": s / 400} for s in steps
    ]
    history += [{"step": 400, "eval_loss": 4.1}, {"step": 400, "train_loss": 5.0, "train_runtime": 100.0}]  # a mean
    state = {"global_step": 400, "max_steps": 400, "log_history": history}
    megatron = [
        {"step": s, "lm loss": 6 - s / 200, "lm loss validation": 6.1 - s / 200, "iteration-time": 0.5} for s in steps
    ]
    olmo = [
        {"_step": s, "train/CrossEntropyLoss": 6 - s / 200, "throughput/device/batches_per_second": 2, "val_loss": 4.1}
        for s in steps
    ]
    nanogpt = [{"iter": s, "train/loss": 6 - s / 200, "val/loss": 6.1 - s / 200, "lr": 6e-4, "mfu": 40} for s in steps]
    for preset, path in {
        "hf-trainer": write(tmp_path, "trainer_state.json", json.dumps(state)),
        "megatron": write(tmp_path, "events.out.tfevents.1", event_file(megatron)),
        "olmo": write(tmp_path, "olmo.jsonl", lines_of(olmo)),
        "nanogpt": write(tmp_path, "nanogpt.csv", nanogpt),
    }.items():
        row = one(import_logs(path, MAP, preset=preset))
        assert row[["train_loss", "val_loss", "train_steps", "status"]].tolist() == [4.0, 4.1, 400, "finished"], preset
        assert pd.isna(row["step_time_s"]) if preset in ("hf-trainer", "nanogpt") else row["step_time_s"] == 0.5


def test_settings_from_a_table_of_runs(tmp_path: Path) -> None:
    log = write(tmp_path, "log.csv", records(run="a") + records(run="b"))
    table = [{"Name": "a", **SETTINGS}, {"Name": "b", **SETTINGS, "num_gpus": 4}, {"Name": "c", **SETTINGS}]
    imported = import_logs(log, settings=write(tmp_path, "runs.csv", table))
    assert imported.logs["num_gpus"].tolist() == [2, 4]
    assert any("1 row of settings without a log (c)" in note for note in imported.notes)


# ---- the authors' files --------------------------------------------------------------------------


def authors_file(folder: Path, name: str = "isoflop_mlstm_ctx16384_wandb_data.pkl", *records: dict[str, Any]) -> Path:
    """A small pickle with the structure of a released one; the numbers are made up."""
    package = "mlstm_scaling_laws.common.wandb_run_data"
    module = types.ModuleType(package)
    names = [package.rsplit(".", part)[0] for part in (2, 1)]
    kind = type("WandBRunData", (), {"__module__": package})
    module.WandBRunData = kind  # type: ignore[attr-defined]
    added = {**{each: types.ModuleType(each) for each in names}, package: module}
    sys.modules.update(added)
    try:
        runs = [kind() for _ in records or (None,)]
        for run, fields in zip(runs, records or (authors_run(),), strict=True):
            run.__dict__.update(fields)
        data = pickle.dumps({"sclaw_tag": runs}, 4)
    finally:
        for each in added:
            del sys.modules[each]
    return write(folder, name, data)


def authors_run() -> dict[str, Any]:
    def metric(name: str, values: dict[int, Any]) -> pd.DataFrame:
        frame = pd.DataFrame({0: list(values), 1: list(values.values())})
        frame.columns = pd.Index(["_step", name], dtype=object)
        return frame

    steps = range(50, 2001, 50)
    values = {
        "train/.loss_mean": {step: 6 - step / 1000 for step in steps},
        "train/.grad_norm_mean": dict.fromkeys(steps, 0.4),
        "train/.step_time": {step: 30.0 if step == 50 else 2 + step / 1e5 for step in steps},
        "val/.dclm_loss": {1000: 5.25, 2000: 4.125},
    }
    prefix = "model.model_config."
    return {
        "name": "dclm_mLSTMv1_ctx16384",
        "id": "abc",
        "path": ["team", "project", "abc"],
        "created_at": "2025-04-17T13:58:58Z",
        "config": {
            "model.model_class": "some.package.xlstm_lm_model.xLSTMLMModel",
            f"{prefix}num_blocks": 12,
            f"{prefix}embedding_dim": 768,
            f"{prefix}vocab_size": 50304,
            f"{prefix}context_length": 16384,
            f"{prefix}mlstm_block.mlstm.num_heads": 6,
            f"{prefix}mlstm_block.mlstm.qk_dim_factor": 0.5,
            "optimizer.scheduler": "{'lr': 0.001, 'decay_steps': 2000, 'cooldown_steps': 1000, 'warmup_steps': 750}",
            "trainer.logger.log_path": "/home/secret-user/outputs",
        },
        "metadata": {
            "email": "secret-user@secret-host.org", "host": "secret-host", "username": "secret-user",
            "root": "/home/secret-user", "git": {"remote": "git@secret-host:secret-user/x.git"},
            "slurm": {"job_num_nodes": "2", "job_name": "secret-job", "job_user": "secret-user"}, "gpu_count": 8,
        },
        "summary": {"dataset/": {"num_train_steps": 2000, "global_batch_size": 64}, "parallel/": {"fsdp_axis_size": 1}},
        "logs": {name: metric(name, each) for name, each in values.items()},
    }  # fmt: skip


def test_a_released_file(tmp_path: Path) -> None:
    path = authors_file(tmp_path)
    imported = import_logs(path)
    logs, curves = written(imported, tmp_path)
    row = logs.iloc[0]
    model = make_architecture("xlstm", d_model=768, n_layers=12, n_heads=6)
    assert row["num_params"] == num_params(model)
    assert row["num_tokens"] == 64 * 16384 * 2000
    assert row["train_flops"] == pytest.approx(train_flops(model, 16384, row["num_tokens"]), rel=1e-5)
    assert row[["num_gpus", "fsdp_size", "learning_rate", "cooldown_steps"]].tolist() == [16, 1, 0.001, 1000]
    assert row[["status", "group", "architecture"]].tolist() == ["finished", "isoflop", "xlstm"]
    assert row["step_time_s"] == np.median([2 + step / 1e5 for step in range(250, 2001, 50)])
    assert row[["train_loss", "val_loss", "d_qk", "d_hv"]].tolist() == [4, 4.125, 64, 128]
    assert len(curves) == 40
    assert imported.files[0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.files[0]["released"] is False
    assert any("differs from the file of this name" in note for note in imported.notes)


def test_a_run_that_resumed_is_one_in_the_token_parameter_studies(tmp_path: Path) -> None:
    name = "tokenparam_mlstm_wandb_data.pkl"
    whole = authors_run()
    first = whole | {"logs": {n: each[each["_step"] <= 1200] for n, each in whole["logs"].items()}, "created_at": "1"}
    second = whole | {"logs": {n: each[each["_step"] > 1000] for n, each in whole["logs"].items()}, "created_at": "2"}
    imported = import_logs(authors_file(tmp_path, name, second, first))
    assert imported.logs["group"].tolist() == ["tokenparam"]
    assert one(imported)["last_logged_step"] == 2000
    assert len(imported.curves) == 44
    assert len(import_logs(authors_file(tmp_path, name.replace("tokenparam", "isoflop"), second, first)).logs) == 2


def test_a_folder_of_released_files_and_a_pointer_to_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    authors_file(tmp_path / "data")
    assert len(import_logs(tmp_path).logs) == 1
    write(tmp_path / "data", "tokenparam_llama_wandb_data.pkl", "version https://git-lfs.github.com/spec/v1\noid x\n")
    assert "pointer of Git LFS" in failure(tmp_path)


def test_another_pickle_is_not_a_log(tmp_path: Path) -> None:
    assert "holds no runs" in failure(write(tmp_path, "a.pkl", pickle.dumps({"a": [1]})))
    assert "refused" in failure(write(tmp_path, "b.pkl", pickle.dumps(print)))
    data = authors_file(tmp_path).read_bytes()
    assert "cut off" in failure(write(tmp_path, "c.pkl", data[: len(data) // 2]))


# ---- personal details ----------------------------------------------------------------------------

PERSONAL = (
    "user", "username", "Author", "owner", "email", "entity", "host", "hostname", "machine", "node", "nodelist",
    "job_id", "job_name", "slurm_job_user", "path", "output_dir", "root", "cwd", "program", "executable", "args",
    "git_remote", "codePath", "notes", "Tags", "api_key", "Created", "metadata.host", "_wandb.user", "config.email",
)  # fmt: skip


def test_personal_details_do_not_arrive(tmp_path: Path) -> None:
    private = {name: f"secret-{number}@secret-host:/home/secret-user" for number, name in enumerate(PERSONAL)}
    rows = [row | private for row in records(run="/home/secret-user/runs/good")]
    files = {
        "csv": write(tmp_path, "a.csv", rows),
        "lines": write(tmp_path, "a.jsonl", lines_of(rows)),
        "nested": write(
            tmp_path, "n.json", json.dumps([{"name": "good", "config": private, "summary": private, "history": rows}])
        ),
        "released": authors_file(tmp_path),
    }
    runs = tmp_path / "runs" / "good"
    runs.mkdir(parents=True)
    write(runs, "events.out.tfevents.1700000000.secret-host.123.0", event_file(records()))
    files["events"] = runs.parent
    files["one event file"] = next(runs.iterdir())
    for name, path in files.items():
        imported = import_logs(path, {} if name == "released" else MAP)
        for table in imported.write(tmp_path, "out", overwrite=True):
            text = table.read_bytes()
            plain = gzip.decompress(text) if table.suffix == ".gz" else text
            assert b"secret" not in plain, name
            assert not set(PERSONAL) & set(plain.decode().splitlines()[0].split(","))
        if name != "released":
            assert imported.logs["run"].tolist() == ["good"]


def test_a_setting_that_no_table_has_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="hostname"):
        RunLog(run="a", where="here", settings={"hostname": "x"})


# ---- curves --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=2, max_size=120), st.integers(2, 40))
@settings(max_examples=25, deadline=None)
def test_a_curve_of_fewer_points_keeps_its_ends_and_its_restarts(gaps: list[int], points: int) -> None:
    steps = np.cumsum(gaps).tolist()
    again = steps[len(steps) // 2 :]
    history = make_history({"step": steps + again, "train_loss": np.linspace(5, 3, len(steps) + len(again))})
    log = RunLog(run="a", where="here", settings=dict(SETTINGS), history=history)
    row = summarize(log, points=points)
    whole = summarize(log, points=None).curve
    assert len(whole) == len(history)
    assert len(row.curve) <= points + 2
    assert row.curve["step"].iloc[[0, -1]].tolist() == [steps[0], steps[-1]]
    assert (row.curve["step"].diff() <= 0).sum() == 1
    table, _ = table_of([row], "here")
    assert table["train_loss"].tolist() == [3.0]
    assert list(history.columns) == list(HISTORY)
