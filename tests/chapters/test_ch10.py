"""Facts, verdicts and tables of chapter 10: those of our records counted another way, and other people's records."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tensors are small: threads would only wait for each other

from companion.accounting.kernel_costs import CellShape  # noqa: E402
from companion.benchmarks.kernels.identity import identity_today  # noqa: E402
from companion.benchmarks.kernels.log import against_peer  # noqa: E402
from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE, GATED_DELTA_RULE_NAME  # noqa: E402
from companion.benchmarks.kernels.results import crossing, load_checks, load_timings  # noqa: E402
from companion.benchmarks.records import read_records  # noqa: E402
from companion.chapters import ch10  # noqa: E402
from companion.chapters.ch10 import answer as answers  # noqa: E402
from companion.chapters.ch10 import forms, overtaking, published, right, speed  # noqa: E402
from companion.chapters.kernel_tables import short_name  # noqa: E402
from companion.formatting import significant  # noqa: E402
from companion.paths import data_dir  # noqa: E402

FOLDER = data_dir() / "benchmarks"
GPU = "NVIDIA H200"
CELL = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512, chunk_size=128)


@pytest.fixture(scope="module")
def shown() -> ch10.Shown:
    return ch10.Shown(load_timings(FOLDER / "kernels.jsonl", "NVIDIA H200"), CELL)


@pytest.fixture(scope="module")
def checks() -> pd.DataFrame:
    return load_checks(FOLDER / "kernel_checks.jsonl")


def newest(name: str, gpu: str, **wanted: Any) -> list[dict[str, Any]]:
    """The last result of every cell of a file of records, read line by line."""
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in read_records(FOLDER / f"{name}.jsonl"):
        for result in record["results"] if record["parameters"]["gpu"] == gpu else []:
            if all(result.get(key) == value for key, value in wanted.items()):
                key = ("part", "case", "dtype", "implementation", "upstream", "configuration", "launch")
                cells[tuple(result.get(field) for field in key)] = result
    return list(cells.values())


def ours_share(shown: ch10.Shown) -> float:
    """The share of the roofline of our training pass, from the timing and the costs."""
    return float(shown.ours["training"]["roofline_seconds"] / shown.ours["training"]["seconds_median"])


def test_names_and_lists() -> None:
    assert short_name("companion, detached normaliser") == "ours, detached"
    assert short_name("mlstm_kernels xl_chunk sigmoid, chunk 128") == "xl_chunk sigmoid, L = 128"
    assert short_name("mlstm_kernels step") == "mlstm_kernels"
    assert short_name("companion step, bfloat16 state") == "ours, bfloat16 state"


# ---- the cell ------------------------------------------------------------------------------------


def test_facts_of_the_forms() -> None:
    rows = [
        ("recurrent", "float64", "h", 1e-15),
        ("chunkwise", "float64", "h", 3e-15),
        ("chunkwise", "float64", "dq", 2e-15),
        ("recurrent", "bfloat16", "h", 1e-3),
        ("chunkwise", "bfloat16", "h", 4e-3),
        ("chunkwise", "bfloat16", "dq", 5e-3),
    ]
    facts = ch10.form_facts(pd.DataFrame(rows, columns=["form", "dtype", "quantity", "error"]))
    assert facts["c10_forms"] == "3×10⁻¹⁵ in float64 and 5×10⁻³ in bfloat16"
    assert (facts["c10_forms_low"], facts["c10_forms_output"]) == ("bfloat16", "0.40 %")
    assert facts["c10_forms_gradient"] == "0.50 %"


def test_facts_of_the_overflow() -> None:
    """exp overflows at the logarithm of the largest number; the page also says that nothing overflows with m."""
    open_input = ch10.without_exponent([(mean, 3) for mean in range(-40, 121, 10)])
    closing = ch10.without_exponent([(0, mean) for mean in (-30, -5, -2, 10)])
    facts = ch10.overflow_facts(open_input, closing)
    assert facts["c10_limit_32"] == f"{128 * np.log(2):.1f}"
    assert facts["c10_limit_16"] == f"{np.log(65504):.1f}"
    lost = [
        mean for mean, error in zip(open_input["input_gate"], open_input["recurrent"], strict=True) if np.isinf(error)
    ]
    assert facts["c10_overflow_32"] == lost[0]
    closed = closing.loc[np.isinf(closing["factored"]), "forget_gate"]
    assert facts["c10_overflow_factored"] == max(closed)
    assert not np.isinf(closing["factored"]).all()
    assert np.isfinite([*open_input["with m"], *closing["with m"]]).all()


def test_facts_of_gradients() -> None:
    inputs = ch10.cell_inputs(40, input_gate=1.0)
    through = ch10.normalizer_gradient_errors(inputs)
    facts = ch10.gradient_facts(through)
    dropped = through[~through["normalizer_gradient"] & (through["upstream"] == "h itself")].set_index("gradient")[
        "error"
    ]
    worst = 100 * max(dropped[name] for name in ("dq", "dk", "di", "df"))
    assert float(str(facts["c10_lost_most"]).removesuffix(" %")) == pytest.approx(worst, rel=0.05)
    assert dropped["dv"] < 1e-12, "values never enter the normalizer"
    assert "10⁻¹" in str(facts["c10_kept"])
    assert "dropped" in ch10.show_normalizer_gradient(through).markup


def test_facts_of_the_forget_gate() -> None:
    exact = np.array([1.0, -2.0])
    tables = {
        mean: pd.DataFrame({"exact": exact, "totals": exact * a, "pairs": exact * b})
        for mean, a, b in ((3, 1.1, 1.2), (-3, 4, 1.5))
    }
    facts = ch10.forget_facts(tables)
    assert (facts["c10_forget_closed"], facts["c10_forget_open"]) == ("−3", "3")
    assert (facts["c10_forget_closed_totals"], facts["c10_forget_closed_pairs"]) == ("300 %", "50 %")
    assert (facts["c10_forget_open_totals"], facts["c10_forget_open_pairs"]) == ("10 %", "20 %")
    assert forms.forget_gate_errors(tables)["totals"].tolist() == pytest.approx([0.1, 3])


# ---- checks --------------------------------------------------------------------------------------


def test_verdicts_of_checks_count_the_records(checks: pd.DataFrame) -> None:
    facts = ch10.check_facts(FOLDER, checks)
    ours = [x for x in newest("kernel_checks", "NVIDIA H200") if x["implementation"].startswith("companion")]
    passed, run = (sum(x["verdict"] in kinds for x in ours) for kinds in (("pass",), ("pass", "fail")))
    assert f"{passed:,} of {run:,} checks on NVIDIA H200" in str(facts["c10_gpus"])
    table = checks[checks["implementation"].str.startswith("companion") & (checks["verdict"] != "skipped")]
    assert str(facts["c10_passed"]).startswith(
        f"Our kernels pass {(table['verdict'] == 'pass').sum():,} of {len(table):,}"
    )
    stale = bool((table["code"] != identity_today().code).any())
    assert ("earlier state" in str(facts["c10_passed"])) == stale, "the page says whose code was measured"


def test_verdict_on_peers_counts_the_records(checks: pd.DataFrame) -> None:
    forms = checks[checks["implementation"].str.contains(r"mlstm_kernels (?:limit|xl)_chunk, chunk")]
    rows = forms[(forms["dtype"] == "bfloat16") & (forms["part"] == "checks") & (forms["verdict"] != "skipped")]
    words = right.peer_verdict(checks)
    for upstream, article in (("general", "a"), ("orthogonal", "an")):
        part = rows[rows["upstream"] == upstream]
        passed = int((part["verdict"] == "pass").sum())
        assert f"{passed or 'none'} of {len(part)} cases with {article} {upstream} upstream gradient" in words
    found = right.peer_rows(checks)[0]
    found = found[found["implementation"].str.contains(r"mlstm_kernels (?:limit|xl)_chunk, chunk")]
    medians = found.groupby("upstream", sort=False)["error_gradients"].median()
    assert words.endswith(f"the median error of the worst gradient is {' and '.join(map(right.small, medians))}")
    lost = found.assign(error_gradients=np.inf)
    assert right._median_error(lost["error_gradients"]) == "not finite"
    assert "mlstm_kernels 2.0.6" in words
    gates = right.forget_gates(checks)
    best = sum(row.iloc[0] <= row.iloc[1:].min() for _, row in gates.iterrows())
    where = "every regime" if best == len(gates) else f"{best} of {len(gates)} regimes"
    assert best >= len(gates) - 1
    assert right.forget_gate_verdict(checks).startswith(f"Ours has the smallest error in {where} of the gates.")
    worse = checks.assign(implementation=checks["implementation"].replace({gates.columns[0]: gates.columns[1]}))
    assert right.forget_gate_verdict(worse).startswith("Ours has the smallest error in "), "ours is always a column"


def test_verdicts_without_peers(checks: pd.DataFrame) -> None:
    ours = checks[checks["implementation"].str.startswith("companion")]
    assert right.peer_verdict(ours) == "No published kernel was run"
    assert right.silent_verdict(ours) == "None raised an exception"
    assert right.forget_gate_verdict(ours) == "It was not run on this GPU"
    assert "no other implementation was checked on this GPU" in ch10.show_peers(ours).markup
    assert "cases of gates" in ch10.show_errors(ours).markup


def test_records_of_an_earlier_state_are_named(checks: pd.DataFrame) -> None:
    ours = checks[checks["implementation"].str.startswith("companion")]
    ours, old = ours.assign(code=identity_today().code), ours.assign(code="before")
    assert right.passed_verdict(old).endswith("(the records are of an earlier state of this code)")
    first = ours[ours["verdict"] == "pass"].index[0]
    assert right.passed_verdict(ours.assign(code=ours["code"].where(ours.index != first, "before"))).endswith(
        "(1 of them are of an earlier state of this code)"
    )
    table = pd.DataFrame({"gpu": ["B", "A", "B"], "code": ["before", ours["code"].iloc[0], "before"]})
    assert speed.of_earlier(table) == " The times on B are of an earlier state of the kernels."
    assert speed.of_earlier(table.iloc[1:2]) == ""


def test_small_results_are_named(checks: pd.DataFrame) -> None:
    one = checks[(checks["verdict"] == "pass") & checks["case"].str.startswith("regime_input_low")].head(1)
    lost = one.assign(errors=[{"h": 0.9}], dtype="float16")
    assert "float16" in right.underflow_verdict(lost)
    assert "input low" in right.underflow_verdict(lost)
    assert right.underflow_verdict(one.assign(errors=[{"h": 0.1}])) == "No result is too small for its dtype"


# ---- times ---------------------------------------------------------------------------------------


def test_verdicts_of_speed_are_the_records(shown: ch10.Shown) -> None:
    facts = ch10.speed_facts(shown)
    found = {x["implementation"]: x for x in newest("kernels", "NVIDIA H200", part="training", case="8x256x512-T8192")}
    ours, theirs = (found[name]["seconds_median"] for name in ("companion", "mlstm_kernels xl_chunk, chunk 128"))
    ratios = re.search(
        r"xl_chunk \(L = 128\) takes [\d.]+ times as long forward and ([\d.]+) times as long forward and backward",
        str(facts["c10_against"]),
    )
    assert ratios
    assert float(ratios[1]) == pytest.approx(theirs / ours, rel=0.05)
    cheaper = found["companion, detached normaliser"]["seconds_median"] / ours - 1
    assert f"{100 * cheaper:+.1f} % forward and backward".replace("-", "−") in str(facts["c10_speed"])
    answer = answers.speed_verdict(shown)
    assert answer.startswith(f"Our kernels run at {100 * ours_share(shown):.0f} % of the speed")
    assert float(str(re.search(r"take ([\d.]+) times", answer)[1])) == pytest.approx(theirs / ours, rel=0.05)  # type: ignore[index]
    stale = set(shown.timings.identities) != {identity_today()}
    assert ("have changed since" in str(facts["c10_versions"])) == stale
    assert facts["c10_gpu"] == "NVIDIA H200"


def test_what_was_not_timed_is_counted(shown: ch10.Shown) -> None:
    table = shown.timings.table
    left_out = table.dropna(subset="skipped")
    wrong = left_out["skipped"].str.contains("relative error of")
    words = speed.untimed_verdict(shown.timings)
    assert words.startswith(f"Of {len(table)} cases, {len(left_out)} were not timed: {wrong.sum()} whose results were")
    assert words.endswith(f"{(~wrong).sum()} because the library needs a newer Triton (simple_gla at L = 64)")
    untimed = ch10.show_untimed(shown.timings).markup.replace("\N{NO-BREAK SPACE}", " ")
    assert "left out: needs Triton 3.7.1 or later, here is 3.6.0" in untimed
    missing = table.assign(skipped=table["skipped"].mask(~wrong.reindex(table.index, fill_value=True), "absent"))
    assert "for another reason" in speed.untimed_verdict(replace(shown.timings, table=missing))
    whole = replace(shown.timings, table=table.drop(columns="skipped"))
    assert speed.untimed_verdict(whole) == "Every case was timed"


def test_another_cell_is_named_and_never_ranked(tmp_path: Path) -> None:
    """The gated delta rule beside our kernels: in the table and the figure by its name, in no verdict."""
    lines = (FOLDER / "kernels.jsonl").read_text(encoding="utf-8").splitlines()
    newest = [x for x in map(json.loads, lines) if x["benchmark"] == "kernels" and x["parameters"]["gpu"] == GPU]
    cells = [(x, y) for x in newest for y in x["results"] if y["case"] == "8x256x512-T8192" and "skipped" not in y]
    record, mine = [(x, y) for x, y in cells if y["implementation"] == "companion" and y["part"] == "training"][-1]
    other = {**mine, "implementation": GATED_DELTA_RULE_NAME, "computation": GATED_DELTA_RULE}
    other |= dict.fromkeys(("seconds_quartile_1", "seconds_median", "seconds_quartile_3"), 1e-9)
    records = tmp_path / "kernels.jsonl"
    records.write_text(json.dumps({**record, "results": [mine, other]}) + "\n", encoding="utf-8")
    shown = ch10.Shown(load_timings(records), CELL)
    assert shown.all_heads == [(8, 256, 512)]
    for page in (ch10.show_speed(shown), ch10.show_times(shown)):
        assert "The gated delta rule is another cell" in page.markup
    assert "gated_delta_rule (another cell)" in ch10.show_speed(shown).markup.replace("<wbr/>", "")
    assert shown.published == {}
    words = (answers.speed_verdict(shown), speed.against_verdict(shown), ch10.show_summary(shown, {}).markup)
    assert not any("delta" in text for text in words)


def test_ratios_of_rivals(shown: ch10.Shown) -> None:
    records = FOLDER / "kernels.jsonl"
    facts = ch10.rival_facts(shown, records)
    theirs = against_peer(records, "mlstm_kernels step")
    theirs = theirs[(theirs["implementation"] == "companion step") & theirs["case"].str.startswith("8x256x512-")]
    low, high = (significant(x, 2) for x in (theirs["ratio"].min(), theirs["ratio"].max()))
    assert facts["c10_step_rivals"] == f"The step of mlstm_kernels takes {low} to {high} times as long"
    assert re.fullmatch(
        r"There xl_chunk takes [\d.]+ to [\d.]+ times as long as our forward pass and [\d.]+ to [\d.]+ times as long "
        r"as our detached pass",
        str(facts["c10_rivals"]),
    )
    other = ch10.Shown(shown.timings, replace(CELL, n_heads=4))
    assert ch10.rival_facts(other, records)["c10_step_rivals"] == "No published step was timed beside ours"
    assert speed._range(pd.Series([1.31, 1.29])) == "1.3"


def test_a_cell_that_was_not_timed(shown: ch10.Shown) -> None:
    other = ch10.Shown(shown.timings, replace(CELL, n_heads=4))
    assert answers.speed_verdict(other) == "Our kernels were not timed at 4 × (256, 512), T = 8192"
    assert speed.against_verdict(other) == "No published kernel of the same cell was timed here"
    assert "normalizer's gradient was not timed here" in speed.cheaper_verdict(other)
    assert published.cell_rates(other).empty
    assert ch10.step_facts(other) == {"c10_steps": "No step was timed"}
    pages = (ch10.show_times(other), ch10.show_speed(other), ch10.show_steps(other), ch10.show_step_shares(other))
    for page in (*pages, ch10.show_summary(other, {})):
        assert "4 × (256, 512) was not timed on NVIDIA H200" in page.markup.replace("\N{NO-BREAK SPACE}", " ")
    assert "was not timed" in ch10.show_step_rivals(other, FOLDER / "kernels.jsonl").markup
    assert answers.crossing_verdict(other, {}) == "These heads were not timed"
    assert overtaking.moved_verdict(other, {}) == "Attention was not timed beside these heads"
    assert "attention was not timed beside these heads" in ch10.show_crossing(other, {}).markup
    assert "not timed." in ch10.show_drift(other, pd.DataFrame({"num_tokens": [4], "float32": [1e-7]})).markup


def test_verdicts_of_the_crossing(shown: ch10.Shown) -> None:
    crossings = {
        ((8, 256, 512), part): crossing(shown.timings, (8, 256, 512), part) for part in ("forward", "training")
    }
    moved = crossings[(8, 256, 512), "training"]
    words = answers.crossing_verdict(shown, crossings)
    assert words.startswith("On NVIDIA H200 the mLSTM cell trains faster than attention")
    assert words.endswith(f"from a context of {moved.measured:.0f} tokens on")
    table = ch10.show_summary(shown, crossings).markup
    for each in crossings.values():
        for tokens in (each.measured, each.by_roofline, each.by_flops):
            assert f">{tokens:.0f}<" in table
    empty = {key: replace(each, table=each.table.iloc[:0]) for key, each in crossings.items()}
    guess = answers.crossing_verdict(shown, empty)
    assert guess.startswith("By rooflines the mLSTM cell trains faster")
    assert guess.endswith("on; attention was not timed here")
    always = replace(moved, measured=np.nan, table=moved.table.assign(attention=1.0, cell=0.5))
    assert answers.where_faster(always) == "at every context that was timed, from 1024 tokens on"
    assert answers.where_faster(replace(always, table=always.table.assign(cell=2.0))) == (
        "at no context up to 65536 tokens"
    )
    assert f"by a factor of {moved.by_roofline / moved.by_flops:.2g}" in overtaking.moved_verdict(shown, crossings)


def test_records_without_peers(tmp_path: Path) -> None:
    """As a reader's: nothing to compare with, which the page says."""
    records = tmp_path / "kernels.jsonl"
    lines = (FOLDER / "kernels.jsonl").read_text(encoding="utf-8").splitlines()
    firsts = [(x, x["results"][0]) for x in map(json.loads, lines)]
    ours = [x for x, first in firsts if first["implementation"] == "companion" and first["part"] == "training"]
    records.write_text(json.dumps(ours[-1]) + "\n", encoding="utf-8")
    assert "no published kernel was timed" in ch10.show_rivals(records, 8192).markup
    shown = ch10.Shown(load_timings(records), CELL)
    assert ch10.rival_facts(shown, records)["c10_rivals"] == "No GPU timed both"
    assert speed.untimed_verdict(shown.timings) == "Every case was timed"


# ---- published rates -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledger() -> pd.DataFrame:
    names = [f"xlstm {size} ttft" for size in ("400m", "160m")] + ["transformer 160m ttft"]
    rows = {"entry": names, "quantity": "alpha_eff_flops_per_s", "published": [2.4e14, 1.6e14, 2e14]}
    return pd.DataFrame(rows).assign(verdict=["reproduced", "reproduced", "differs"], independent=[True, False, True])


def test_rates_of_the_cell_by_hand(shown: ch10.Shown) -> None:
    """FLOPs of the matrix products at L = 128 with 0.75 of the pairs, and a few percent for all else."""
    rates = published.cell_rates(shown).set_index("what")["flops_per_s"]
    products = 65536 * 8 * (0.75 * 2 * 128 * (256 + 512) + 4 * 256 * 512)
    seconds = shown.ours["forward"]["seconds_median"]
    assert products / seconds < rates["cell alone, ours"] < 1.05 * products / seconds
    ratio = rates["cell alone, ours"] / rates["cell alone, xl_chunk, L = 128"]
    assert ratio == pytest.approx(shown.published["mlstm_kernels xl_chunk, chunk 128"]["forward"])


def test_published_rates_beside_the_cell(shown: ch10.Shown, ledger: pd.DataFrame) -> None:
    assert list(published.published_rates(ledger)["what"]) == ["model, 160M", "model, 400M"]
    facts = ch10.published_facts(shown, ledger)
    assert str(facts["c10_between"]).startswith("Both published rates lie between the 71 TFLOP/s")
    assert facts["c10_rates"] == (
        "The ledger reproduces both published rates, 1 of them from data that do not depend on the published numbers"
    )
    slow = ledger.assign(published=1e12, verdict="differs")
    facts = ch10.published_facts(shown, slow)
    assert str(facts["c10_between"]).startswith("Neither of the two published rates lie")
    assert facts["c10_rates"] == "The ledger reproduces neither of the two published rates"
    markup = ch10.show_published(shown, ledger).markup.replace("\N{NO-BREAK SPACE}", " ")
    assert markup.index("cell alone, xl_chunk, L = 128") < markup.index("model, 160M") < markup.index(">matrix product")
    alone = published.between_verdict(shown, ledger["published"], pd.DataFrame({"what": ["cell alone, ours"]}))
    assert alone.startswith("No published kernel was timed")


def test_without_a_wish_nothing_is_timed_here() -> None:
    assert "Set `benchmark_here`" in ch10.show_here(False).data
