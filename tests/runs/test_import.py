"""Run tables made of what people have: formats, names, units, what follows from what, and files that are wrong."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import error_line, run_json
from foreign import table
from hypothesis import given
from hypothesis import strategies as st

from companion import cli
from companion.accounting import num_params, train_flops
from companion.architectures import preset
from companion.errors import InputError
from companion.runs.import_ import PRESETS, import_runs
from companion.runs.import_.values import PF_DAY, header_unit, plain_name, read_number
from companion.runs.load import load_paper_runs, load_runs

#: Three runs of the course's set (Stanford CS336, assignment 3, isoflops_curves.json).
COURSE = [
    {"parameters": 49999999, "compute_budget": 6e18, "final_loss": 7.192784500319437},
    {"parameters": 78730505, "compute_budget": 6e18, "final_loss": 6.750171320661809},
    {"parameters": 83333333, "compute_budget": 1e19, "final_loss": 6.575071254529126},
]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        import_runs(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---- formats -------------------------------------------------------------------------------------


def nested(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for run in runs:
        found.setdefault(f"{run['compute_budget']:g}", []).append({"n": run["parameters"], "loss": run["final_loss"]})
    return found


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(COURSE, id="list"),
        pytest.param({"version": 2, "runs": COURSE}, id="list beside other things"),
        pytest.param(nested(COURSE), id="lists under budgets"),
        pytest.param({name: [run[name] for run in COURSE] for name in COURSE[0]}, id="columns"),
        pytest.param({f"run-{i}": run for i, run in enumerate(COURSE)}, id="objects under names"),
        pytest.param([{"config": {"parameters": r["parameters"]}, "summary": r} for r in COURSE], id="nested objects"),
    ],
)
def test_forms_of_json(value: Any, tmp_path: Path) -> None:
    path = write(tmp_path, "runs.json", json.dumps(value))
    mapping = {"num_params": "config.parameters"} if isinstance(value, list) and "config" in value[0] else None
    runs = import_runs(path, mapping, architecture="transformer").runs
    assert runs["num_params"].tolist() == [run["parameters"] for run in COURSE]
    assert runs["val_loss"].tolist() == [run["final_loss"] for run in COURSE]
    np.testing.assert_allclose(runs["train_flops"].astype(float), [run["compute_budget"] for run in COURSE])
    np.testing.assert_allclose(6.0 * runs["num_params"] * runs["num_tokens"] / runs["train_flops"], 1, rtol=1e-8)


def test_the_same_runs_in_every_format(tmp_path: Path) -> None:
    frame = load_paper_runs().head(20)[["architecture", "num_params", "num_tokens", "train_flops", "val_loss", "d_ff"]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";", decimal=",")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, double_precision=15)
    frame.to_parquet(tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        imported = import_runs(path)
        out = imported.write(tmp_path / "out.csv", overwrite=True)
        pd.testing.assert_frame_equal(load_runs(out), frame, check_dtype=False, check_like=True, obj=path.name)
        assert imported.derived == imported.dropped == imported.left_out == ()
        out.unlink()


def test_a_folder_of_json_files(tmp_path: Path) -> None:
    """The form of mlfoundations/scaling (arXiv 2403.08540), exp_data/models."""
    for name, tokens, loss in (("a", 52846560, 6.12), ("b", 211386240, 5.1)):
        run = {"hyperparameters": {"params": 10569312, "params_no_embed": 5727840, "tokens": tokens, "lr": 0.003}}
        run["results"] = [{"loss": 9.9, "tokens": 1}, {"loss": loss, "tokens": 2}]  # type: ignore[assignment]
        write(tmp_path, f"{name}.json", json.dumps(run | {"open_lm_args": ["--x"] * 90}))
    imported = import_runs(tmp_path, preset="gadre", architecture="transformer")
    assert imported.runs["num_tokens"].tolist() == [52846560, 211386240]
    assert imported.runs["val_loss"].tolist() == [6.12, 5.1]
    assert "results.0.loss" in imported.left_out


# ---- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("412M", 412e6),
        ("412m", 412e6),
        ("2.1B", 2.1e9),
        ("22 T", 22e12),
        ("3e18", 3e18),
        ("3e18 FLOPs", 3e18),
        ("1.2 ZFLOP", 1.2e21),
        ("500 EFLOPs", 5e20),
        ("14 PF-days", 14 * PF_DAY),
        ("0.5 petaflop/s-days", 0.5 * PF_DAY),
        ("1,234,567", 1234567),
        ("1.5 billion", 1.5e9),
        ("300 million parameters", 3e8),
        ("9223372036854775806", 9223372036854775806),
        ("-2.5", -2.5),
    ],
)
def test_numbers_with_units(text: str, value: float) -> None:
    assert read_number(text).value == value


@pytest.mark.parametrize("text", ["", "abc", "12 apples", "1e999", "M", "1..2", "0x10", "1_000"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InputError):
        read_number(text)


@given(st.integers(0, 10**18), st.sampled_from(["", "K", "M", "B", "T"]))
def test_a_unit_multiplies(number: int, unit: str) -> None:
    factor = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[unit]
    assert read_number(f"{number}{unit}").value == pytest.approx(number * factor, rel=1e-15)
    assert read_number(f"{number}{unit}").with_unit == bool(unit)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("params (M)", 1e6),
        ("Tokens [B]", 1e9),
        ("num_params_M", 1e6),
        ("tokens_billions", 1e9),
        ("tokens in billions", 1e9),
        ("compute (PF-days)", PF_DAY),
        ("C (ZFLOP)", 1e21),
        ("num_params", None),
        ("train_flops", None),
        ("loss_m", None),
        ("d_model", None),
        ("M", None),
    ],
)
def test_units_of_headers(name: str, factor: float | None) -> None:
    assert header_unit(name) == factor
    if factor is not None:
        assert plain_name(name) in ("params", "tokens", "num_params", "compute", "c", "tokens_in")


# ---- what follows from what ----------------------------------------------------------------------


def one_row(tmp_path: Path, cells: dict[str, Any], **options: Any) -> Any:
    names, values = ",".join(cells), ",".join(map(str, cells.values()))
    return import_runs(write(tmp_path, "runs.csv", f"{names}\n{values}\n"), **options)


def test_split_counts_are_added(tmp_path: Path) -> None:
    cells = {"embedding_params": "12M", "non_embedding_params": "85M", "tokens": "2B", "loss": 3.2}
    imported = one_row(tmp_path, cells)
    assert imported.runs["num_params"].tolist() == [97_000_000]
    assert any("embedding_params + other_params" in note for note in imported.derived)
    assert imported.runs["train_flops"].tolist() == [pytest.approx(6 * 97e6 * 2e9)]
    assert "train_flops=6 * num_params * num_tokens" in imported.runs["derived"].iloc[0]


def test_tokens_of_batch_context_and_steps(tmp_path: Path) -> None:
    cells = {"params": "1e8", "batch_size": 128, "seq_len": 2048, "steps": 1000, "val_loss": 3.0}
    assert one_row(tmp_path, cells).runs["num_tokens"].tolist() == [128 * 2048 * 1000]
    cells = {"params": "1e8", "tokens_per_step": 2**19, "steps": 1000, "val_loss": 3.0}
    assert one_row(tmp_path, cells).runs["num_tokens"].tolist() == [2**19 * 1000]
    for name in ("tokens_per_param", "token_param_ratio"):
        cells = {"params": "1e8", name: 20, "val_loss": 3.0}
        assert one_row(tmp_path, cells).runs["num_tokens"].tolist() == [2 * 10**9]


def test_compute_is_counted_from_shapes_where_they_are_there(tmp_path: Path) -> None:
    model = preset("xlstm", "160m")
    shapes = {name: model.shapes()[name] for name in ("d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff")}
    cells = {"arch": "xLSTM", "tokens": "1e9", "loss": 3.3, "context": 2048, **shapes}
    runs = one_row(tmp_path, cells).runs
    assert runs["num_params"].tolist() == [num_params(model)]
    assert runs["train_flops"].tolist() == [train_flops(model, 2048, 10**9)]
    six = one_row(tmp_path, cells, convention="6ND").runs
    assert six["train_flops"].tolist() == [6 * num_params(model) * 10**9]


def test_perplexity_becomes_a_loss(tmp_path: Path) -> None:
    runs = one_row(tmp_path, {"params": "1e8", "tokens": "2e9", "perplexity": 20.0}).runs
    assert runs["val_loss"].tolist() == [pytest.approx(np.log(20))]


def test_expressions_and_names_with_spaces(tmp_path: Path) -> None:
    cells = {"bits per byte": 1.0, "N": "1e8", "D": "2e9"}
    mapping = {"val_loss": "`bits per byte` * 0.6931471805599453 * 4.5"}
    assert one_row(tmp_path, cells, mapping=mapping).runs["val_loss"].tolist() == [pytest.approx(4.5 * np.log(2))]
    for wrong, part in {
        "__import__('os')": "write columns and numbers",
        "N.real": "no column 'N.real'",
        "N**2": "write columns and numbers",
        "nothing + N": "no column 'nothing'",
        "(N": "neither a column nor an expression",
    }.items():
        line = failure(tmp_path / "runs.csv", mapping={"val_loss": wrong})
        assert line.startswith(f"{tmp_path / 'runs.csv'}: ")
        assert part in line
    path = write(tmp_path, "words.csv", "n,d,loss\n1e8,2e9,low\n")
    assert "row 2, column 'loss': 'low'" in failure(path, mapping={"val_loss": "loss / 2"}, architecture="gpt")


def test_names_of_a_tracker_and_split_counts_of_a_spreadsheet(tmp_path: Path) -> None:
    names = (
        "Name,config/n_layer,config/n_embd,config/n_head,config/batch_size,config/block_size,config/max_iters,val/loss"
    )
    path = write(tmp_path, "wandb.csv", f"{names}\na,6,384,6,64,256,5000,1.47\n")
    assert "or the architecture (transformer, xlstm, gated_deltanet, " in failure(path)
    runs = import_runs(path, architecture="transformer").runs
    assert runs["num_tokens"].tolist() == [64 * 256 * 5000]
    assert runs["context_length"].tolist() == [256]
    sheet = write(
        tmp_path, "sheet.tsv", "params_embedding\tparams_other\ttokens(B)\tvalidation loss\n25M\t100M\t2.5\t3.3\n"
    )
    assert import_runs(sheet).runs[["num_params", "num_tokens"]].to_numpy().tolist() == [[125_000_000, 2_500_000_000]]


def test_two_losses_must_be_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path, "runs.json", json.dumps([{"n": 1e8, "d": 2e9, "a": {"loss": 3}, "b": {"loss": 4}}]))
    assert "a.loss, b.loss" in failure(path)
    assert import_runs(path, {"val_loss": "b.loss"}).runs["val_loss"].tolist() == [4]


def test_sizes_are_no_architectures() -> None:
    imported = import_runs(table("columns_with_spaces"))
    assert imported.runs["architecture"].unique().tolist() == ["transformer"]
    assert len(imported.runs) == 80


def test_rows_are_not_dropped_in_silence(tmp_path: Path) -> None:
    text = "params,tokens,loss,set\n1e8,2e9,3.1,a\n1e8,4e9,nan,a\n1e8,8e9,inf,b\n,8e9,2.9,b\n1e8,2e9,3.1,a\n"
    imported = import_runs(write(tmp_path, "runs.csv", text))
    assert len(imported.runs) == 1
    said = " ".join(imported.dropped)
    assert "row 5 without num_params" in said
    assert "2 rows (3, 4) without val_loss" in said
    assert "row 6 equal to an earlier one" in said


def test_labels_are_kept_for_where(tmp_path: Path) -> None:
    text = "n,d,loss,dataset,note\n1e8,2e9,3.1,c4,x\n2e8,2e9,3.0,c4,y\n1e8,2e9,3.3,dclm,z\n"
    path = write(tmp_path, "runs.csv", text)
    imported = import_runs(path, keep=["note"])
    assert imported.runs["dataset"].tolist() == ["c4", "c4", "dclm"]
    assert imported.runs["note"].tolist() == ["x", "y", "z"]
    assert import_runs(path).left_out == ("note",)


# ---- the command ---------------------------------------------------------------------------------


def test_import_then_check_and_isoflop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's own runs under other names and in other units go through the same analysis to the same law."""
    runs = load_paper_runs()
    runs = runs[
        (runs["architecture"] == "xlstm") & (runs["context_length"] == 8192) & (runs["experiment"] == "isoflop")
    ]
    renamed = pd.DataFrame(
        {"Params (M)": runs["num_params"] / 1e6, "tokens_B": runs["num_tokens"] / 1e9, "final_loss": runs["val_loss"]}
        | {
            "flops [ZFLOP]": runs["train_flops"] / 1e21,
            "compute_budget": runs["isoflop_budget"].map("{:g} FLOP".format),
        }
    )
    renamed.to_csv(tmp_path / "sweep.csv", index=False)
    out = tmp_path / "table.csv"
    options = ["--architecture", "xlstm", "--output", str(out)]
    result = run_json(capsys, "import", "runs", str(tmp_path / "sweep.csv"), *options)
    assert result["mapping"]["num_params"].startswith("column 'Params (M)'")
    assert result["summary"]["num_runs"] == len(runs)
    assert cli.main(["data", "check", str(out)]) == 0
    capsys.readouterr()
    ours = run_json(capsys, "isoflop", str(out), "--bootstrap", "0")
    runs.to_csv(tmp_path / "plain.csv", index=False)
    theirs = run_json(capsys, "isoflop", str(tmp_path / "plain.csv"), "--bootstrap", "0")
    assert ours["exponent"] == pytest.approx(theirs["exponent"], rel=1e-6)


def test_the_command_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "curves.json", json.dumps(COURSE))
    assert cli.main(["import", "runs", "curves.json", "--preset", "cs336"]) == 0
    said = capsys.readouterr().out
    for words in ("num_params     <- column 'parameters'", "derived: num_tokens = isoflop_budget / (6 * num_params)"):
        assert words in said
    assert "curves_runs.csv: 3 runs (3 model)" in said
    assert len(load_runs("curves_runs.csv")) == 3
    assert "curves_runs.csv: exists already; give --force" in error_line(capsys, "import", "runs", "curves.json")
    assert cli.main(["import", "runs", "curves.json", "--force"]) == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "n,d,loss\n", "has a header but no runs"),
        ("a.csv", "n,d,loss\n1,2\n", "row 2: has 2 cells, the header has 3 columns"),
        ("a.csv", "n,n,loss\n1,2,3\n", "column 'n' appears twice"),
        ("a.csv", "x,y\n1,2\n", r"a size \(num_params\) is in no row"),
        ("a.csv", "n,d\n1e8,2e9\n", r"a final loss \(val_loss\) is in no row"),
        ("a.csv", "n,d,loss\n1e8,2e9,300\n", "the imported table is not valid: row 2, column 'val_loss': 300"),
        ("a.csv", "n,steps,batch_size,seq_len,loss\n1e8,1.5,8,1024,3\n", "column 'train_steps': 1.5 is not a whole"),
        ("a.csv", '"unclosed\n', "not a table of separated values"),
        ("a.json", "{", "is not JSON: line 1"),
        ("a.json", "[]", "holds no runs"),
        ("a.json", '"text"', "holds no runs"),
        ("a.json", "[1, 2]", "holds no runs"),
        ("a.jsonl", '{"n": 1}\n[1]\n', "row 2: is not an object"),
        ("a.jsonl", '{"n": 1}\n{\n', "row 2: is not JSON"),
        ("a.json", '[{"n": ' + "9" * 5000 + "}]", "is not JSON of runs: a whole number has more digits"),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}", "row 1: is not JSON: a whole number has more digits"),
        ("a.parquet", "PAR1", "is not a Parquet table"),
        ("a.xlsx", "PK", "format .xlsx is not known; give --format"),
    ],
)
def test_wrong_files(name: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, name, text)
    line = error_line(capsys, "import", "runs", str(path), "--output", str(tmp_path / "out.csv"))
    assert re.search(words, line), line
    assert str(path) in line
    assert not (tmp_path / "out.csv").exists()


def test_wrong_options_come_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "a.json", json.dumps(COURSE))
    out = ["--output", str(tmp_path / "out.csv")]
    for options, words in (
        (["--map", "loss=final_loss"], "'loss' is not a column of a run table"),
        (["--map", "val_loss"], "write COLUMN=NAME"),
        (["--map", "architecture=nothing"], "no column 'nothing'"),
        (["--keep", "nothing"], "no such column"),
        (["--output", str(tmp_path)], "is a folder"),
        (["--output", str(tmp_path / "no" / "out.csv")], "no such folder"),
    ):
        chosen = options if "--output" in options else [*out, *options]
        line = error_line(capsys, "import", "runs", str(path), *chosen)
        assert words in line, line
    assert "no such file" in error_line(capsys, "import", "runs", str(tmp_path / "none.csv"), *out)
    plain = write(tmp_path, "plain.csv", "n,d,loss\n1e8,2e9,3\n")
    line = error_line(capsys, "import", "runs", str(plain), "--convention", "paper", *out)
    assert "convention paper needs context_length, d_model" in line
    zero = ["import", "runs", "/dev/zero", "--format", "csv"]
    assert "is not a regular file" in error_line(capsys, *zero, *out)


@pytest.mark.parametrize("preset_name", sorted(PRESETS))
def test_presets_name_columns_of_a_run_table(preset_name: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "x,y\n1,2\n")
    line = failure(path, preset=preset_name)
    assert "x, y" in line or "is in no row" in line
