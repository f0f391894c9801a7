"""Collapse of normalized curves: curves that are one by construction, and curves that are not."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.training.collapse import collapse_score, collapse_spread, normalized_curves, stands_out

FLOOR = 2.0


def study(exponents: list[float], steps: list[int] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs with L = E + c · fraction^-exponent, c of its own for every run; 200 points each."""
    steps = steps or [200] * len(exponents)
    parts = []
    for number, (exponent, last) in enumerate(zip(exponents, steps, strict=True)):
        fraction = np.arange(1, 201) / 200
        loss = FLOOR + (0.5 + 0.1 * number) * fraction**-exponent
        parts.append(pd.DataFrame({"run": f"r{number}", "step": last // 200 * np.arange(1, 201), "train_loss": loss}))
    logs = pd.DataFrame({"run": [f"r{number}" for number in range(len(exponents))], "train_steps": steps})
    return pd.concat(parts, ignore_index=True), logs


def test_power_laws_of_one_exponent_collapse_whatever_their_size_and_steps() -> None:
    found = normalized_curves(*study([0.3] * 5, [200, 400, 600, 2000, 4000]), FLOOR)
    assert found[1.0].tolist() == pytest.approx([1] * 5)
    assert collapse_score(found) == pytest.approx(0, abs=1e-12)


def test_the_spread_is_that_of_the_formula() -> None:
    exponents = [0.1, 0.3, 0.5]
    found = normalized_curves(*study(exponents), FLOOR, fractions=[0.5, 0.75], window=0.001 + 1 / 200)
    expected = np.array([0.5**-x for x in exponents])
    assert collapse_spread(found)[0.5] == pytest.approx(expected.std(ddof=1) / expected.mean(), rel=0.02)
    assert collapse_spread(found)[1.0] == pytest.approx(0)


def test_a_wrong_floor_spoils_the_collapse() -> None:
    curves, logs = study([0.3] * 5)
    assert collapse_score(normalized_curves(curves, logs, FLOOR - 1)) > 0.005
    each = normalized_curves(curves, logs, dict.fromkeys(logs["run"], FLOOR))
    assert collapse_score(each) == pytest.approx(0, abs=1e-12)


def test_the_odd_run_stands_out() -> None:
    table, explained = stands_out(normalized_curves(*study([0.3, 0.31, 0.29, 0.3, 0.32, 0.6]), FLOOR))
    assert table.index[0] == "r5"
    assert table["score"].iloc[0] > 5 > table["score"].abs().iloc[1]
    assert explained == 0


def test_what_the_steps_explain_is_taken_out() -> None:
    steps = [200, 400, 600, 1000, 2000, 4000, 6000, 8000]
    exponents = [0.3 + 20 / last for last in steps]
    exponents[4] += 0.01
    curves, logs = study(exponents, steps)
    normalized = normalized_curves(curves, logs, FLOOR)
    plain, _ = stands_out(normalized)
    table, explained = stands_out(normalized, train_steps=logs.set_index("run")["train_steps"])
    assert plain.index[0] == "r0"
    assert table.index[0] == "r4"
    assert 0.98 < explained < 1


def test_bad_input_is_named() -> None:
    curves, logs = study([0.3] * 3)
    with pytest.raises(InputError, match=r"^irreducible loss 2.6 is not below the training loss of run 'r0', 2.5"):
        normalized_curves(curves, logs, 2.6)
    with pytest.raises(InputError, match=r"^irreducible loss: run 'r2' has none$"):
        normalized_curves(curves, logs, {"r0": 2.0, "r1": 2.0})
    with pytest.raises(InputError, match=r"^training logs: run 'r1' has no loss at its end; leave it out$"):
        normalized_curves(curves, logs.assign(train_steps=[200, 300, 200]), FLOOR)
    normalized = normalized_curves(curves, logs, FLOOR)
    with pytest.raises(InputError, match=r"^collapse: 2 runs; a spread needs at least 3$"):
        collapse_score(normalized.iloc[:2])
    with pytest.raises(InputError, match=r"^collapse: no fraction between begin = 1 and the end"):
        collapse_score(normalized, 1.0)
    with pytest.raises(InputError, match=r"^collapse: 3 runs; at least 5 are needed$"):
        stands_out(normalized, train_steps=logs.set_index("run")["train_steps"])
