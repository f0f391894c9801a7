"""`companion overtraining` on the tables of other studies."""

import pytest
from commands import error_line, run_json
from foreign import table

from companion import cli


def test_overtraining_of_other_studies(capsys: pytest.CaptureFixture[str]) -> None:
    """Ratios keep their values; eta of the runs of Gadre et al. with right FLOPs is 0.0718."""
    mixed = run_json(capsys, "overtraining", str(table("ratios_mixed")))
    assert [row["token_param_ratio"] for row in mixed["slopes"]] == [20, 30, 70, 150, 500]
    assert sum(row["num_runs"] for row in mixed["slopes"]) == 25
    right = run_json(capsys, "overtraining", str(table("int64_right")))
    assert right["common_eta"] == pytest.approx(0.0718, abs=5e-5)
    assert right["warnings"] == [f"ratio {ratio}: 2 runs, fewer than 3, left out" for ratio in (320, 640)]
    one = run_json(capsys, "overtraining", str(table("one_ratio")))
    assert one["parallel_test"]["p_value"] is None
    assert "one ratio only: there is nothing to compare its slope with" in one["warnings"]
    assert cli.main(["overtraining", str(table("one_ratio"))]) == 0
    assert "nan" not in capsys.readouterr().out
    for name, words in (("two_sizes", "no ratio"), ("isoflop_comma", "of the design isoflop")):
        assert words in error_line(capsys, "overtraining", str(table(name)))


def test_keys_of_json_stay_and_the_printed_table_has_the_name_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    [row] = run_json(capsys, "overtraining", str(table("one_ratio")))["slopes"]
    assert list(row) == ["token_param_ratio", "num_runs", "eta", "eta_standard_error", "lambda", "eta_interval"]
    assert cli.main(["overtraining", str(table("one_ratio"))]) == 0
    header = capsys.readouterr().out.splitlines()[0]
    assert header.split() == ["tokens_per_param", "num_runs", "eta", "eta_standard_error", "lambda"]
