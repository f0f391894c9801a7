"""Chapter 0: the cell, what both models keep, the settings, and a map that names real places."""

import re
from pathlib import Path

import numpy as np
import pytest

from companion.architectures import preset
from companion.book.notebooks import ROOT, sources
from companion.chapters import ch00
from companion.chapters.ch00.drawings import blocks, memories
from companion.chapters.ch00.paradigms import paradigms
from companion.chapters.front import HOLDS, HOLDS_NOT, Claim, paper_claims
from companion.fitting.fit import fit
from companion.fitting.isoflop import fit_isoflop, isoflop_runs
from companion.laws import LossSurface
from companion.runs import load_paper_runs, subset

TEXT = (ROOT / "notebooks" / "00_paper_in_ten_minutes.md").read_text(encoding="utf-8")
#: An authors' notebook that exists, and from which no published number was taken.
WITHOUT_NUMBERS = {"flop_calculations/mlstm_model_flop_analysis"}


def plain_outputs(q: np.ndarray, k: np.ndarray, v: np.ndarray, i: np.ndarray, f: np.ndarray) -> list[np.ndarray]:
    """The cell without a stabilizer, token by token."""
    memory, normalizer, outputs = np.zeros((k.shape[1], v.shape[1])), np.zeros(k.shape[1]), []
    for t in range(len(q)):
        keep = 1 / (1 + np.exp(-f[t]))
        memory = keep * memory + np.exp(i[t]) * np.outer(k[t], v[t])
        normalizer = keep * normalizer + np.exp(i[t]) * k[t]
        outputs.append(memory.T @ q[t] / max(abs(normalizer @ q[t]), 1.0))
    return outputs


def test_cell_against_a_plain_one() -> None:
    inputs = ch00.example_inputs(30, 4, 6)
    outputs = plain_outputs(*inputs)
    assert ch00.difference_from_parallel(*inputs, outputs) < 1e-14
    outputs[3] = outputs[3] * 1.01
    assert ch00.difference_from_parallel(*inputs, outputs) > 1e-4
    _, k, v, i, f = inputs
    states = ch00.states_of(k, v, i, f)
    assert np.allclose(states[0], np.exp(i[0]) * np.outer(k[0], v[0]))
    assert np.allclose(states[9] - states[8] / (1 + np.exp(-f[9])), np.exp(i[9]) * np.outer(k[9], v[9]))


def test_what_is_kept() -> None:
    facts = ch00.memory_facts("7b", 16384)
    attention, state = preset("transformer", "7b"), preset("xlstm", "7b")
    kept = state.n_layers * state.n_heads * (state.d_qk * state.d_hv + state.d_qk + 1) * 4
    cache = 2 * attention.n_layers * attention.n_heads * attention.d_qk * 2  # bytes a token
    assert facts["c0_state"] == f"{kept / 2**30:.2g} GiB"
    assert facts["c0_cache"] == f"{16384 * cache / 2**30:.1f} GiB"
    assert facts["c0_equal_cache"] == f"{kept / cache:,.0f}"
    assert float(ch00.memory_facts("7b", 32768)["c0_cache"].split()[0]) == 2 * float(facts["c0_cache"].split()[0])


def test_settings() -> None:
    runs = load_paper_runs()
    table = ch00.settings_table(runs)
    assert table["num_runs"].sum() == len(runs)
    [row] = table.query("experiment == 'isoflop' and context_length == 2048").to_dict("records")
    part = runs[(runs["experiment"] == "isoflop") & (runs["context_length"] == 2048)]
    assert row["num_runs"] == len(part)
    assert row["num_tokens_max"] == part["num_tokens"].max()
    assert "83.6M to 1.88B" in ch00.show_settings(table).markup
    facts = ch00.run_facts(runs)
    assert int(facts["c0_num_xlstm"]) + int(facts["c0_num_transformer"]) == int(facts["c0_num_runs"]) == len(runs)
    assert facts["c0_batch"] == "1.0M to 4.2M"
    assert int(facts["c0_num_runs"]) + int(facts["c0_twice"]) == int(facts["c0_paper_count"])
    assert int(facts["c0_figure_losses"]) == (runs["source"] == "figure").sum() > int(facts["c0_imposed"])
    ratio = (runs["num_tokens"] / runs["num_params"])[runs["experiment"] == "tokenparam"]
    assert float(facts["c0_least_ratio"]) == pytest.approx(ratio.min(), rel=0.05)
    assert float(facts["c0_most_ratio"].replace(",", "")) == pytest.approx(ratio.max(), rel=0.05)


def test_answers() -> None:
    claims = [
        Claim(says=f"Claim {i}.", place="p", found="f", verdict=verdict, chapter="03_isoflop")
        for i, verdict in enumerate((HOLDS, HOLDS_NOT) * 3)
    ]
    facts = ch00.answer_facts(claims)
    assert facts["c0_says_size"] == "Claim 2"
    assert [facts[f"c0_verdict_{name}"] for name in ("loss", "rate")] == [HOLDS, HOLDS_NOT]
    assert all(f"`{name}`" in TEXT for name in facts)
    chapters = [Path(claim.chapter).stem[3:] for claim in paper_claims()]
    about = ["run_table", "overtraining", "isoflop", "context_length", "inference_time", "inference_time"]
    assert chapters == about, "the order that chapter 0 takes for granted"


def test_drawings() -> None:
    left, right = blocks().axes
    words = [{text.get_text() for text in ax.texts} for ax in (left, right)]
    assert {"RMSNorm", "SwiGLU feed-forward", "+"} <= words[0] & words[1]
    assert any("attention" in word for word in words[0] - words[1])
    assert any("mLSTM" in word for word in words[1] - words[0])
    states = ch00.states_of(*ch00.example_inputs(4, 2, 3)[1:])
    left, right = memories(states).axes
    assert len(left.patches) == 2 * (1 + 2 + 3 + 4), "a key and a value more each time"
    assert len(right.patches) == states.size
    shades = [patch.get_alpha() for patch in right.patches]
    assert np.argmax(shades) == np.abs(states).argmax()


def test_paradigms() -> None:
    runs = subset(load_paper_runs(), "transformer", context_length=8192)
    valleys, surface = fit_isoflop(isoflop_runs(runs, "transformer")), fit(LossSurface, runs)
    left, right = paradigms("transformer", valleys, surface, runs).axes
    marks = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "d"]
    assert marks == [profile.x_opt for profile in valleys.optima]
    assert len(right.lines[0].get_xdata()) == len(runs)
    facts = ch00.law_facts("transformer", valleys, surface, 8192)
    assert facts["c0_exponent"] == f"{valleys.power_law.law.exponent:.2f}"
    assert facts["c0_surface_runs"] == f"{len(runs)} runs"
    assert facts["c0_at_context"] == " at T = 8192"
    assert ch00.law_facts("transformer", valleys, surface, None)["c0_at_context"] == ""
    budgets = runs.loc[runs["experiment"] == "isoflop", "isoflop_budget"]
    assert facts["c0_last_budget"] == "1×10²⁰"
    assert budgets.max() == 1e20


def test_main_architecture() -> None:
    runs = load_paper_runs()
    assert ch00.main_architecture({"transformer": runs, "xlstm": runs}) == "xlstm"
    assert ch00.main_architecture({"gpt": runs, "mamba2": runs}) == "gpt"


def test_the_map_links_every_numbered_chapter() -> None:
    rows = re.findall(r"^\| \[(\d+) [^\]]*\]\((\d\d_\w+)\.ipynb\) \|.*\|$", TEXT, re.MULTILINE)
    stems = [path.stem for path in sources(ROOT / "notebooks") if 0 < int(path.stem[:2]) < 90]
    assert [stem for _, stem in rows] == stems
    assert all(int(number) == int(stem[:2]) for number, stem in rows)


def test_the_map_names_notebooks_of_the_authors() -> None:
    published = (ROOT / "data" / "published.yaml").read_text(encoding="utf-8")
    named = re.findall(r"(?<!\})`([\w/-]+)`", TEXT[TEXT.index("without the ending.") :].split("```")[0])
    assert len(named) > 5
    assert not [name for name in named if f"notebooks/{name}.ipynb" not in published and name not in WITHOUT_NUMBERS]


def test_numbers_in_the_sidebar_are_those_of_the_files() -> None:
    toc = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    numbered = toc.split("numbered: true")[1].split("caption:")[0]
    globs = [pattern.replace("chapters/", "") for pattern in re.findall(r"glob: (\S+)", numbered)]
    found = [path.stem for pattern in globs for path in sorted((ROOT / "notebooks").glob(f"{pattern}.md"))]
    assert [int(stem[:2]) for stem in found] == list(range(1, len(found) + 1))
    assert "00_paper_in_ten_minutes" in toc.split("numbered: true")[0]


@pytest.mark.parametrize("label", ["c0-context", "c0-stabilizer", "c0-half"])
def test_every_exercise_has_a_solution(label: str) -> None:
    assert f":label: {label}" in TEXT
    assert f"{{solution}} {label}" in TEXT or f"{{solution-start}} {label}" in TEXT
