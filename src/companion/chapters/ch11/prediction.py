"""Chapter 11: what faster kernels of the mLSTM's cell would change in the comparison, as a prediction.

The logs hold times of whole steps. How much of a step is the cell is not in them; the records of chapter 10 time the
kernel that the runs used, one layer by itself, on a GPU of the same kind.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from companion.accounting import count_flops
from companion.benchmarks.kernels.results import OURS, OURS_DETACHED, load_timings
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.chapters.applicability import need, need_paper
from companion.chapters.ch11.shown import Costs
from companion.paths import data_dir
from companion.runs.recount import models_of

#: The architecture with this cell, the kernel that its runs used, and the kind of GPU they ran on.
CELL, KERNEL, GPU = "xlstm", "mlstm_kernels limit_chunk, chunk 64", "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What faster kernels would save.

    Attributes
    ----------
    factors
        how many times as fast ours are in one layer, forward and forward with backward taken together, by heads:
        `d_qk`, `d_hv`, `gradient` (`full` or `detached`), `factor`, and `trained`: whether models have heads so wide.
    shares
        a row for every model whose heads were timed: `num_params`, `share_timed` and `share_flops`, shares of a step.
    gpu
        of the timings.
    """

    factors: pd.DataFrame
    shares: pd.DataFrame
    gpu: str

    def saved(self, share: float, factor: float) -> float:
        """Share of a step that a faster cell saves: what is left of the cell is its share over the factor (Amdahl)."""
        return share * (1 - 1 / factor)

    @property
    def own_factor(self) -> float:
        """The factor at the width of the models' heads, with the full gradient: mean over the timed ones."""
        own = self.factors[(self.factors["gradient"] == "full") & self.factors["trained"]]
        return float(own["factor"].mean())

    def cases(self, ratio: float) -> pd.DataFrame:
        """The prediction, and how far other assumptions move it.

        Parameters
        ----------
        ratio
            GPU-hours of the other architecture over those of the one with the cell, as measured.

        Returns
        -------
        DataFrame
            with `assumption`, `share` (of the step, median over the models), `factor`, `saved` and `ratio` with the
            faster kernels. The first row is the prediction; then the least and the largest factor of any timed heads,
            and the share by FLOPs.
        """
        least, most = float(self.factors["factor"].min()), float(self.factors["factor"].max())
        timed, by_flops = "timed in one layer", "FLOPs at the step's rate"
        rows = []
        for words, column, factor in (
            (timed, "share_timed", self.own_factor),
            (timed, "share_timed", least),
            (timed, "share_timed", most),
            (by_flops, "share_flops", self.own_factor),
        ):
            share = float(self.shares[column].median())
            saved = self.saved(share, factor)
            row = {"assumption": words, "share": share, "factor": factor, "saved": saved}
            rows.append(row | {"ratio": ratio / (1 - saved)})
        return pd.DataFrame(rows)


def predict(costs: Costs, records: Path | None = None) -> Prediction:
    """Shares of the cell in a step, and how much faster our kernels are.

    Parameters
    ----------
    records
        of timings; None for those of the book.

    Raises
    ------
    NotApplicable
        for a reader's own logs, or a context that was not timed.
    """
    need_paper(costs.of_paper)
    need(CELL in costs.runs, f"no runs with the cell of {CELL}")
    path = data_dir() / "benchmarks" / "kernels.jsonl" if records is None else records
    timings = load_timings(path, GPU)
    table = timings.table[timings.table["context_length"] == costs.context_length]
    seconds = table.pivot_table("seconds_median", ["n_heads", "d_qk", "d_hv"], ["implementation", "part"])
    need(KERNEL in seconds, f"the authors' kernel was not timed at T = {costs.context_length}")
    # a block that is recomputed runs forward twice and backward once
    pass_of = {name: seconds[name, "forward"] + seconds[name, "training"] for name in (KERNEL, OURS, OURS_DETACHED)}
    factors = pd.concat(
        [
            (pass_of[KERNEL] / pass_of[name]).rename("factor").reset_index().assign(gradient=gradient)
            for name, gradient in ((OURS, "full"), (OURS_DETACHED, "detached"))
        ],
        ignore_index=True,
    )
    shares = _shares(costs, pass_of[KERNEL])
    need(len(shares), "no model has heads that were timed")
    widths = set(zip(costs.runs[CELL]["d_qk"], costs.runs[CELL]["d_hv"], strict=True))
    factors["trained"] = [width in widths for width in zip(factors["d_qk"], factors["d_hv"], strict=True)]
    return Prediction(factors=factors.dropna(subset="factor"), shares=shares, gpu=timings.gpu)


def _shares(costs: Costs, kernel: pd.Series) -> pd.DataFrame:
    """Shares of the cell in the step, for the models whose heads were timed; time grows with heads and tokens."""
    runs = costs.runs[CELL].drop_duplicates("num_params").sort_values("num_params")
    timed = kernel.dropna().rename("seconds").reset_index().to_dict("records")
    per_head = {(row["d_qk"], row["d_hv"]): row["seconds"] / row["n_heads"] / NUM_TOKENS for row in timed}
    widths = list(zip(runs["d_qk"], runs["d_hv"], strict=True))
    runs = runs.assign(per_head=[per_head.get(width, np.nan) for width in widths]).dropna(subset="per_head")
    if runs.empty:
        return pd.DataFrame(columns=["num_params", "share_timed", "share_flops"])
    tokens = runs["num_tokens"] / runs["train_steps"] / runs["num_gpus"]
    cell = runs["per_head"] * runs["n_heads"] * runs["n_layers"] * tokens
    counted = count_flops(models_of(runs), runs["context_length"].to_numpy())
    return pd.DataFrame(
        {
            "num_params": runs["num_params"].to_numpy(),
            "share_timed": (cell / runs["step_time_s"]).to_numpy(),
            "share_flops": np.asarray(counted.share("mixer_core"), dtype=float),
        }
    )
