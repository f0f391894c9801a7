"""Notebooks: pairs in step, execution in this interpreter, parameters, errors that say where, the same bytes again."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from model_records import write_records
from small_book import plain_book, source, texts
from training_records import write_records as write_training_records

from companion.benchmarks.records import append_record, read_records
from companion.book import building as book
from companion.errors import InputError

NOTEBOOKS = book.ROOT / "notebooks"
SOURCES = book.sources(NOTEBOOKS)
DATA = book.ROOT / "data"
#: The parameters of chapter 15 that are files, and how the files of a recorded study end.
STUDY_FILES = {"runs": "runs.csv", "logs": "runs_logs.csv", "curves": "runs_curves.csv.gz", "design": "design.toml"}

# Every chapter must also run with other values of its parameters: at least one set each, and as few as reach all the
# ways through it, as each takes as long as the chapter.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "00_paper_in_ten_minutes": [{"architecture": "transformer", "model_size": "400m", "num_tokens": 7}],
    "01_counting_flops": [{"convention": "tfla", "context_length": 100, "size": "400m"}],
    "02_run_table": [{"context_length": 2048, "reading": "steps", "first": "transformer", "second": "xlstm"}],
    "03_isoflop": [{"context_length": 2048, "architectures": ["xlstm"]}],
    "04_loss_surface": [{"context_length": 2048, "architectures": ["xlstm"], "gamma": 1.0, "num_resamples": 50}],
    "05_overtraining": [{"architectures": ["transformer"], "num_resamples": 50}],
    "06_how_fits_go_wrong": [{"architecture": "xlstm", "num_starts": 5}],
    "07_context_length": [{"architectures": ["xlstm"], "fit_context": 16384, "budget": 1e19, "num_resamples": 40}],
    "08_inference_time": [
        {"hardware": "h200-sxm", "model_size": "1.4b", "batch_sizes": [4], "losses": [2.5], "num_resamples": 40},
    ],
    "09_planning": [
        {"train_flops": None, "target_loss": 2.6, "context_length": 4096, "hardware": "h200-sxm", "num_resamples": 20},
        {"architectures": ["xlstm"], "prefill_tokens": 0, "generated_tokens": 0, "num_resamples": 20}
        | {"train_flops": None, "gpu_hours": 500, "utilization": 0.3},
    ],
    "10_gpu_kernels": [
        {"context_length": 128, "chunk_size": 32, "dtypes": ["float32"], "heads": [16, 128, 256], "timed_context": 4096}
        | {"records_folder": "of a reader"}  # see `own_records`
    ],
    "11_training_cost": [{"context_length": 8192, "loss": 3.1, "num_resamples": 20}],
    "12_what_final_losses_hide": [
        {"early_fraction": 0.5, "batch_power": 0.5, "num_resamples": 40, "num_draws": 2},
    ],
    "13_from_cell_to_model": [{"train_seconds": 1, "small_models": ["xlstm"], "distance": 2, "records": "of a reader"}],
    "14_inference_measured": [{"records": "of a reader", "model_size": "400m", "tokens": 4096, "num_resamples": 10}],
    "15_own_study": [
        {f"{name}_file": str(DATA / f"study_v1024_{end}") for name, end in STUDY_FILES.items()}
        | {"context_length": 256, "num_resamples": 40, "reach": [0], "num_draws": 2, "example_budgets": [2e9]},
        {"runs_file": str(DATA / "runs.csv"), "context_length": None, "num_resamples": 40} | {"example_budgets": [2e9]},
    ],
    "16_laboratory": [
        {"design_architecture": "transformer", "wanted": "exponent", "budget": 3e20, "max_runs": 3, "num_worlds": 1}
        | {"replayed": "transformer", "world": "another one"},
    ],
    "90_ledger": [{"box_height": 20}],
    "92_kernel_log": [{"records_folder": "of a reader"}],
    "91_explorer": [
        {"architectures": ["xlstm"], "tokens_per_param": None, "hardware": "rtx-4090", "num_resamples": 20},
        {
            "logs_hardware": "a100-sxm",
            "train_flops": 7e23,
            "context_length": 3000,
            "batch_size": 300,
            "experiment": "isoflop",
            "num_resamples": 20,
        },
    ],
}


def own_records(folder: Path) -> Path:
    """Records as a reader makes them who has a GPU and no other implementation: one state of ours, nothing skipped."""
    folder.mkdir()
    for name in ("kernels", "kernel_checks"):
        records = read_records(book.ROOT / "data/benchmarks" / f"{name}.jsonl")
        last = records[-1]["parameters"]["code"]
        for record in records:
            ours = all(result["implementation"].startswith("companion") for result in record["results"])
            if ours and record["parameters"]["code"] == last:
                record["parameters"]["gpu"] = "NVIDIA GeForce RTX 4090"
                append_record(folder / f"{name}.jsonl", record)
    return folder


def test_committed_pairs_are_in_step() -> None:
    stale = [path.name for path in book.sync(NOTEBOOKS, check=True)]
    assert not stale, f"run `make sync`: {', '.join(stale)}"


def test_committed_notebooks_have_no_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), path.name
            assert cell.get("execution_count") is None, path.name


def test_every_chapter_has_a_variant() -> None:
    assert sorted(VARIANTS) == [path.stem for path in SOURCES]


@pytest.mark.parametrize(
    ("stem", "parameters"),
    [pytest.param(stem, values, id=f"{stem}-{i}") for stem, sets in VARIANTS.items() for i, values in enumerate(sets)],
)
def test_chapter_runs_with_changed_parameters(stem: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    path = NOTEBOOKS / f"{stem}.md"
    assert set(parameters) <= book.parameters_of(path)
    if "records_folder" in parameters:
        parameters = parameters | {"records_folder": str(own_records(tmp_path / "records"))}
    if "records" in parameters:
        sizes = ("160m", "400m")
        if stem.startswith("13"):
            place = write_training_records(tmp_path / "records", sizes)
        else:
            place = write_records(tmp_path, device="A GPU", sizes=sizes, library=False)
        parameters = parameters | {"records": str(place)}
    (executed,) = book.execute([path], tmp_path, parameters)
    assert "injected-parameters" in executed.read_text()


def test_pairs(tmp_path: Path) -> None:
    path = source(tmp_path, "1 + 1", "1 + 1")
    pair = path.with_suffix(".ipynb")
    assert book.sync(tmp_path, check=True) == [pair]
    assert not pair.exists()
    assert book.sync(tmp_path) == [pair]
    before = pair.read_bytes()
    assert book.sync(tmp_path, check=True) == book.sync(tmp_path) == []
    assert pair.read_bytes() == before
    ids = [cell["id"] for cell in json.loads(before)["cells"]]
    assert len(set(ids)) == len(ids) == 4

    source(tmp_path, "1 + 2", "1 + 1")
    assert book.sync(tmp_path, check=True) == [pair]
    assert book.sync(tmp_path) == [pair]
    assert json.loads(pair.read_text())["cells"][-1]["id"] == ids[-2], "a cell keeps its id when another one changes"
    path.unlink()
    assert book.sync(tmp_path, check=True) == [pair], "an .ipynb without its source"


def test_runs_in_this_interpreter_and_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python"], "display_name": "x", "language": "x"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = source(tmp_path, "import os, sys\nprint(sys.executable, os.getcwd(), os.environ['OMP_NUM_THREADS'])")
    (executed,) = book.execute([path], tmp_path / "out")
    assert texts(executed).split() == [sys.executable, str(tmp_path), "1"]


def test_parameters(tmp_path: Path) -> None:
    paths = [
        source(tmp_path, "print(scale * 21)", name="01_a", parameters="scale: int = 2"),
        source(tmp_path, "print(name)", name="02_b", parameters="name = 'b'"),
    ]
    plain = book.execute(paths, tmp_path / "plain")
    assert [texts(path) for path in plain] == ["42\n", "b\n"]
    assert "injected" not in plain[0].read_text()

    changed = book.execute(paths, tmp_path / "changed", {"scale": 3}, jobs=1)
    assert [texts(path) for path in changed] == ["63\n", "b\n"]
    cells = json.loads(changed[0].read_text())["cells"]
    assert [cell["metadata"].get("tags") for cell in cells] == [
        None,
        ["parameters"],
        ["injected-parameters", "hide-input"],
        None,
    ]
    with pytest.raises(InputError, match="no notebook has a parameter called skale"):
        book.execute(paths, tmp_path / "refused", {"skale": 3})
    assert not (tmp_path / "refused").exists()


def test_parameters_cell_is_required(tmp_path: Path) -> None:
    path = source(tmp_path, "1", parameters=None)
    with pytest.raises(InputError, match=r"^01_test\.md: no code cells tagged `parameters`"):
        book.execute([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("injected", [False, True])
def test_failing_cell(tmp_path: Path, injected: bool) -> None:
    path = source(tmp_path, "print('fine')", "\n# a fit\nfit = scale / 0\nprint('never')")
    good = source(tmp_path, "print('good')", name="02_good")
    with pytest.raises(book.NotebookError) as raised:
        book.execute([path, good], tmp_path / "out", {"scale": 3} if injected else None)
    assert str(raised.value) == "01_test.md: cell 4 (`# a fit`): ZeroDivisionError: division by zero"
    assert (raised.value.notebook, raised.value.cell) == (path, 4)
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == ["02_good.ipynb"], "nothing half-written, and the other notebook is done"


def test_kernel_that_dies(tmp_path: Path) -> None:
    path = source(tmp_path, "import os\nos._exit(1)")
    with pytest.raises(book.NotebookError, match=r"^01_test\.md: cell 3 \(`import os`\): DeadKernelError"):
        book.execute([path], tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="sockets in a folder")
def test_kernels_take_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two kernels that start at once, one could lose its port to the other and never answer."""
    code = "import json\nfrom ipykernel.connect import get_connection_info\nprint(get_connection_info(unpack=True))"
    (made,) = book.execute([source(tmp_path, code)], tmp_path / "out")
    assert "'transport': 'ipc'" in made.read_text()
    long = tmp_path / ("f" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))  # no system takes sockets with such names
    (made,) = book.execute([source(tmp_path, code)], tmp_path / "out")
    assert "'transport': 'tcp'" in made.read_text()


def test_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    path = source(
        tmp_path,
        "import sys, warnings\nprint({'b', 'a', 'c'}, object())\nwarnings.warn('careful')",
        "for i in range(50):\n    print(i, flush=True)\n    print(-i, file=sys.stderr, flush=True)",
        "object()",
        "scale",
    )
    (first,) = book.execute([path], tmp_path / "first")
    (second,) = book.execute([path], tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    for noise in ("0x7", "ipykernel_", "papermill", "duration", str(tmp_path)):
        assert noise not in first.read_text()
    before = first.stat().st_mtime_ns
    book.execute([path], tmp_path / "first")
    assert first.stat().st_mtime_ns == before, "unchanged files are left alone"


@pytest.mark.parametrize("text", ["", "---\na: [\n---\n"])
def test_source_that_is_no_notebook(tmp_path: Path, text: str) -> None:
    path = tmp_path / "01_broken.md"
    path.write_text(text)
    with pytest.raises(InputError, match=r"01_broken\.md: "):
        book.execute([path], tmp_path / "out")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        book.sync(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"01_gone\.md"):
        book.execute([tmp_path / "01_gone.md"], tmp_path / "out")
    with pytest.raises(InputError, match=r"no _config\.yml"):
        book.build(tmp_path / "out", root=tmp_path)


def test_sphinx_warning_fails_the_build(tmp_path: Path) -> None:
    plain_book(tmp_path, "# Title\n\n{doc}`nowhere`\n")
    source(tmp_path / "notebooks", "scale")
    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("an earlier build")
    (html / ".companion-book").touch()

    with pytest.raises(InputError) as raised:
        book.build(root=tmp_path, progress=False)
    assert "book/index.md:3: WARNING: unknown document: 'nowhere'" in str(raised.value)
    assert (html / "index.html").read_text() == "an earlier build"
    assert sorted(p.name for p in (tmp_path / "_build").iterdir()) == ["html", "sphinx.log"]

    (tmp_path / "book" / "index.md").write_text("# Title\n")
    said: list[str] = []
    index = book.build(root=tmp_path, progress=False, report=said.append).index
    assert index == html / "index.html"
    assert "an earlier build" not in index.read_text()
    assert said[0].startswith("notebooks ")
    assert said[-1].startswith(str(index))
