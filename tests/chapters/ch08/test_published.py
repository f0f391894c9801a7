"""Published runtime models: which numbers come out again, and the authors' counts beside ours."""

import pandas as pd
from html_tables import rows_of

from companion.chapters import ch08
from companion.inference.published_count import count_table


def test_numbers_that_come_out_again(timings: pd.DataFrame) -> None:
    ledger = pd.DataFrame(
        {
            "entry": ["xlstm 160m ttft", "xlstm 160m ttft", "transformer 400m step_time"],
            "quantity": ["alpha_eff_flops_per_s", "alpha_over_peak", "eps_s"],
            "published": [2.0, 1.0, 1.0],
            "ours": [2.0, 1.3, 1.0],
            "verdict": ["reproduced", "differs", "reproduced"],
            "independent": [True, True, False],
        }
    )
    first, second = rows_of(ch08.ledger_table(ledger))
    assert [first[key].strip() for key in ("numbers", "reproduced", "independent")] == ["2", "1", "1"]
    assert first["largest relative difference"].replace(" ", "").startswith("3×10⁻¹")
    assert (second["what"], second["independent"].strip()) == ("step", "0")
    small = timings[timings["model_size"].isin(["160m", "400m"])]
    facts = ch08.published_facts(small, ledger, count_table(small))
    assert facts["c8_num_reproduced"] == "2 of 3"
    assert facts["c8_num_following"] == "One"
    assert facts["c8_count_prefill_transformer"] == "17 to 19 %"
