"""The authors' timings and the models of all sizes, with few resamples, once for the chapter."""

import pandas as pd
import pytest

from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import fit_all_models
from companion.inference.timings import load_paper_inference


@pytest.fixture(scope="package")
def timings() -> pd.DataFrame:
    return load_paper_inference()


@pytest.fixture(scope="package")
def models(timings: pd.DataFrame) -> dict[tuple[str, str], RuntimeModel]:
    return fit_all_models(timings, num_resamples=10)[0]
