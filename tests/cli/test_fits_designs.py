"""`companion fit` and `extrapolate` on any design: a result or one line, never a traceback."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion import cli


@st.composite
def designs(draw: st.DrawFn) -> pd.DataFrame:
    """Runs at few or many places: grids, lines, repeats; losses with or without scatter, or all the same."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    number = draw(st.integers(1, 24))
    kind = draw(st.sampled_from(["free", "ratio", "budget", "grid", "one", "power"]))
    size = 10 ** rng.uniform(7.5, 10, number)
    if kind in {"grid", "one"}:
        size = 10.0 ** rng.choice([8.0, 9.0, 9.5][: 1 if kind == "one" else 3], number)
    tokens = {
        "ratio": 20 * size,
        "budget": 1e20 / 6 / size,
        "power": 1e10 * (size / 1e9) ** 2,
    }.get(kind, size * 10.0 ** rng.choice([1.0, 1.5, 2.0, 2.5], number))
    size, tokens = size.round(), tokens.round()
    scatter = np.exp(rng.normal(0, draw(st.sampled_from([0.0, 1e-6, 0.01, 0.3])), number))
    floor = draw(st.sampled_from([0.0, 1.7]))
    loss = (floor + 400 * size**-0.34 + 410 * tokens**-0.28) * scatter
    if draw(st.booleans()):
        loss = np.full(number, 2.5)
    table = pd.DataFrame({"architecture": "x", "num_params": size, "num_tokens": tokens})
    return table.assign(train_flops=6 * size * tokens, val_loss=loss)


@given(designs(), st.sampled_from(["free", "1", "0.5"]), st.sampled_from(["1e-3", "inf", "1e-12"]))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_design(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    table: pd.DataFrame,
    gamma: str,
    delta: str,
) -> None:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    table.to_csv(path, index=False)
    for command in (["fit", str(path), "--bootstrap", "6"], ["extrapolate", str(path)]):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            status = cli.main([*command, "--gamma", gamma, "--huber-delta", delta, "--json"])
        out, err = capsys.readouterr()
        assert status in {0, 2}
        if status == 2:
            assert len([line for line in err.splitlines() if not line.startswith("note: ")]) == 1
        else:
            result = json.loads(out)
            if command[0] == "fit" and not result["identified"]:
                assert set(result["intervals"].values()) == {None}
