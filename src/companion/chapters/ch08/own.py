"""Chapter 8: the ratios of chapter 14, whose models run on kernels of this package, beside those of the authors."""

from functools import lru_cache

from companion.chapters.ch14.measured import Measured, load
from companion.chapters.ch14.ratios import own_ratio_facts, show_own_ratios
from companion.errors import NotApplicable
from companion.inference.timings import load_paper_inference
from companion.paths import data_dir
from companion.plotting import Html


def own_kernels_figure(model_size: str) -> Html:
    """Ratio of times over the context at one size, B = 1: the authors' timings and ours.

    Raises
    ------
    NotApplicable
        without records of models of this size.
    """
    return show_own_ratios(_recorded(), load_paper_inference(), model_size)


def own_kernels_facts(model_size: str) -> dict[str, object]:
    """Ratios at a long context, the authors' and ours."""
    return own_ratio_facts(_recorded(), load_paper_inference(), model_size)


@lru_cache(maxsize=1)
def _recorded() -> Measured:
    path = data_dir() / "benchmarks" / "model_inference.jsonl"
    if not path.exists():
        raise NotApplicable("there are no records of models of our own")
    return load(path)
