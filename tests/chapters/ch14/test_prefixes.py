"""Prefix caching on the page: copies beside prefills, trees, links and intervals."""

import pytest
from html_tables import rows_of, text_of

from companion.chapters.ch14 import prefixes
from companion.chapters.ch14.measured import Measured
from companion.formatting import significant
from companion.inference.prefix import best_interval, kept_by
from companion.inference.prefix_tree import prefix_tree

PROMPTS = [[("system", 200), (f"tools {i}", 300), (f"task {i} {j}", 50)] for i in range(2) for j in range(3)]


def test_copies_beside_prefills(measured: Measured) -> None:
    table = prefixes.copies(measured, "7b").set_index(["model", "tokens"])
    cell = measured.at("prefill", "xlstm", "7b", 4096)
    assert cell is not None
    assert table.loc[("xlstm", 4096), "prefill"] == cell["seconds_median"]
    assert table.loc[("xlstm", 4096), "bytes"] == kept_by(measured.architectures["xlstm", "7b"]).state_bytes
    assert prefixes.num_copies(measured, "7b") == 16
    assert prefixes.num_copies(measured, "160m") == 0
    rows = rows_of(prefixes.show_copy_table(measured, "7b"))
    assert len(rows) == 16
    assert "xLSTM: prefill" in text_of(prefixes.show_copies(measured, "7b"))


def test_prefills_between_timed_lengths(measured: Measured) -> None:
    times = measured.series("prefill", "xlstm", "7b").set_index("prompt_tokens")["seconds_median"]
    middle = prefixes._between(times, 2048)
    assert middle**2 == pytest.approx(times[1024] * times[4096]), "2048 lies half-way in logarithms"
    assert prefixes._between(times, 2**20) != prefixes._between(times, 2**20), "no guess beyond what was timed"


def test_tree_on_the_page(measured: Measured) -> None:
    models = prefixes.models_of(measured, "400m")
    rows = rows_of(prefixes.show_tree(prefix_tree(PROMPTS), models, every=128))
    assert len(rows) == 2 + 2 * 3
    xlstm = [row for row in rows if row["model"] == "xLSTM"]
    # 128 in the system prompt; 256 and 384 in two of tools; 512 in six tasks
    assert [row["snapshots kept"] for row in xlstm] == ["3", "6", "11"]
    # shared: 500 tokens of every prompt; on the grid 384 of them
    assert [row["read again"] for row in xlstm] == ["0 %", "100 %", "23 %"]
    state = kept_by(models["xlstm"]).state_bytes
    assert xlstm[0]["GiB"] == significant(3 * state / 2**30)


def test_links(measured: Measured) -> None:
    models, per_token = prefixes.models_of(measured, "7b"), prefixes.seconds_per_token(measured, "7b", 16384)
    assert per_token["xlstm"] == measured.at("prefill", "xlstm", "7b", 16384)["seconds_median"] / 16384  # type: ignore[index]
    rows = rows_of(prefixes.show_links(models, per_token, {"fast": 1e12, "slow": 1e9}, "7b"))
    assert [row["Transformer"] for row in rows] == ["always", "never"]
    kept = kept_by(models["xlstm"])
    assert rows[1]["xLSTM"] == f"{kept.state_bytes / 1e9 / per_token['xlstm']:,.0f}"


def test_intervals(measured: Measured) -> None:
    kept = kept_by(measured.architectures["xlstm", "7b"])
    costs = {"prefix_tokens": 65536, "seconds_per_token": 2e-5, "seconds_kept": 600, "memory_bytes": 1.4e11}
    rows = rows_of(prefixes.show_intervals(kept, [10, 1000], **costs))
    assert [int(row["tokens between snapshots"].replace(",", "")) for row in rows] == [
        best_interval(kept, hits=hits, **costs) for hits in (10, 1000)
    ]


def test_kept_over_the_prefix(measured: Measured) -> None:
    figure = prefixes.show_kept(prefixes.models_of(measured, "7b"), "7b")
    assert "kept for one prefix (MiB)" in text_of(figure)


class TestFacts:
    def test_sizes_by_hand(self, measured: Measured) -> None:
        found = prefixes.prefix_facts(measured, prefixes.models_of(measured, "7b"), "7b", 16384)
        # 32 layers of 8 heads: 256 × 512 + 256 + 1 numbers of 4 bytes
        assert found["c14_snapshot_xlstm"] == f"{32 * 8 * (256 * 512 + 257) * 4 / 2**20:.0f} MiB"
        assert found["c14_token_transformer"] == "512 KiB", "32 layers of 2 · 4096 numbers of 2 bytes"
        assert found["c14_equal_cache"] == "257"
        assert found["c14_equal_cache_grouped"] == "1,026"
        assert "agrees" not in str(found["c14_copy_check"])
        assert "at most 0.012, that of plain PyTorch 0.011" in str(found["c14_copy_check"])
        assert str(found["c14_copies"]).startswith("In every case")

    def test_copies_that_do_not_pay(self, measured: Measured) -> None:
        table = prefixes.copies(measured, "7b")
        assert "below one" in prefixes.copy_verdict(table.assign(copy=10 * table["prefill"]))
        assert prefixes.copy_verdict(table.iloc[:0]) == "No copy was timed in these records"

    def test_checks_that_fail_or_are_missing(self, measured: Measured) -> None:
        checks = measured.checks
        copied = checks["quantity"].str.contains("cop")
        assert "no check of a continued copy" in prefixes.copy_check_verdict(checks[~copied])
        failed = checks.assign(verdict=checks["verdict"].where(~copied, "fail"))
        assert "In 8 cases" in prefixes.copy_check_verdict(failed)
        few = checks.assign(reference_error=checks["reference_error"].where(checks["model"] != "xlstm", 1.1))
        assert prefixes.copy_check_verdict(few).endswith(
            "In 2 cases the check decides nothing, because plain PyTorch loses every digit"
        )
        none = checks.assign(reference_error=1.1)
        assert prefixes.copy_check_verdict(none).startswith("No check of a continued copy decides")

    def test_without_the_models(self, measured: Measured) -> None:
        models = {"xlstm": measured.architectures["xlstm", "7b"]}
        found = prefixes.prefix_facts(measured, models, "7b", 16384)
        assert found["c14_equal_cache"] == "an unknown number of"
