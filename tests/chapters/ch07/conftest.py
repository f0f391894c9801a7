"""Fits and explanations of the paper's runs over the context length, with few resamples, once for the chapter."""

import pandas as pd
import pytest

from companion.fitting.context.prediction import Explanation, explain
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.runs.load import load_paper_runs


@pytest.fixture(scope="package")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="package")
def fits(runs: pd.DataFrame) -> dict[str, ContextFit]:
    return {name: fit_context_optima(runs, name, num_resamples=40) for name in ("transformer", "xlstm")}


@pytest.fixture(scope="package")
def explanations(fits: dict[str, ContextFit]) -> dict[str, Explanation]:
    return {name: explain(fit) for name, fit in fits.items()}
