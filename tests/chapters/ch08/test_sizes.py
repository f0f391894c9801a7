"""What the fits of single sizes determine, on the authors' timings and on tables with less."""

import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.chapters import ch08
from companion.chapters.ch08 import sizes
from companion.inference.one_size import fit_inference
from companion.inference.terms import (
    fit_all_sizes,
    fixed_bandwidths,
)


def test_counts_of_the_timings(timings: pd.DataFrame) -> None:
    facts = ch08.timing_facts(timings)
    first, step = (timings[column].notna().sum() for column in ("ttft_s", "step_time_s"))
    assert facts["c8_num_timings"] == f"{first} times to first token and {step} step times"
    assert facts["c8_num_combinations"] == f"{len(timings):,}"
    assert facts["c8_batches"] == "1 to 1,024"
    assert "the weights were held in 2 bytes" in facts["c8_memory"]


def test_tables_with_less(timings: pd.DataFrame) -> None:
    little = timings[timings["architecture"] == "xlstm"].drop(columns=["step_time_s", "memory_allocated_bytes_gen1"])
    assert ch08.quantities_of(little) == ["ttft"]
    facts = ch08.timing_facts(little)
    assert "step" not in facts["c8_num_timings"]
    assert "does not say" in facts["c8_memory"]


def test_what_fits_of_single_sizes_say(timings: pd.DataFrame) -> None:
    small = timings[timings["model_size"].isin(["160m", "7b"])]
    fits, notes = fit_all_sizes(small, num_resamples=20)
    milliseconds, _ = fit_all_sizes(small, num_resamples=0, objective="milliseconds")
    facts = ch08.size_facts(fits, milliseconds, [*notes, "a reason"])
    assert "bandwidth of the xLSTM" in facts["c8_unidentified"]
    assert facts["c8_notes"].startswith("For no xLSTM size do the step times determine β and ε per sequence")
    assert facts["c8_notes"].endswith("Not fitted: a reason")
    steps = rows_of(ch08.step_table(fits))
    assert [row["β (TB/s)"] for row in steps[:2]] == ["not determined"] * 2
    first = rows_of(ch08.first_token_table(fits, milliseconds))[0]
    alone = fit_inference(timings, "xlstm", "160m", "ttft", num_resamples=0)
    rate = first["α (TFLOP/s)"].split("\u00a0")[0].split(" ")[0]
    assert float(rate) == pytest.approx(alone.parameters["alpha_eff_flops_per_s"] / 1e12, rel=5e-3)
    constants = sizes.first_token_constants(fits, milliseconds)
    assert (constants.loc[constants["architecture"] == "Transformer", "ms"] < 0).all()
    assert facts["c8_negative"] == (
        "Fitted in milliseconds, ε is negative for both Transformer sizes (and for no xLSTM size); fitted to "
        "relative errors, it is never negative"
    )
    errors = ch08.objective_errors(small, {"relative": fits, "milliseconds": milliseconds})
    assert len(errors) == 2 * 2 * 2
    assert ch08.objective_facts(errors)["c8_short_gain"].startswith("the Transformer's error falls from")


def test_verdicts_turn(timings: pd.DataFrame) -> None:
    small = timings[timings["model_size"].isin(["160m", "7b"]) & (timings["architecture"] == "transformer")]
    fits, _ = fit_all_sizes(small, num_resamples=20)
    assert sizes.identification_verdict(fits, []) == "Every parameter that was fitted is determined"
    assert sizes.rate_verdict(fits).startswith("The paper's form determines every rate")
    some = pd.DataFrame({"architecture": "Transformer", "ms": [-1.0, 1.0, 2.0], "relative": [-1.0, -1.0, -1.0]})
    assert sizes.negative_verdict(some) == (
        "Fitted in milliseconds, ε is negative for one of the three Transformer sizes; fitted to relative errors, "
        "it is negative for all three Transformer sizes"
    )


def test_the_same_misfit_at_any_bandwidth(timings: pd.DataFrame) -> None:
    free = fixed_bandwidths(timings, "xlstm", "7b", [-1e12, 1e12])
    assert len(rows_of(ch08.bandwidth_table(free, "7b"))) == 2
    assert ch08.same_misfit(free.assign(rms_log_error=[0.2, 0.5])) == "3×10⁻¹"


def test_nothing_to_fit() -> None:
    assert "no times to first token" in text_of(ch08.first_token_table({}, {}))
    assert "no step times" in text_of(ch08.step_table({}))
    facts = ch08.size_facts({}, {}, [])
    assert facts["c8_notes"] == "Every parameter that was fitted is determined"
    assert facts["c8_negative"] == "This table has no times to first token"
    assert (
        ch08.objective_facts(ch08.objective_errors(pd.DataFrame(), {}))["c8_short_gain"]
        == "there is nothing to compare"
    )
