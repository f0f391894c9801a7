"""Loss over compute at a fixed ratio of tokens to parameters.

Source: arXiv 2510.02228, over-training section; the form is L(C) = lambda·C^-eta for every ratio M = D/N.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Tokens per parameter that the Token/Param runs aim at.
PRESET_RATIOS = (22.0, 44.0, 110.0, 220.0, 550.0, 1100.0, 2200.0)
#: A run belongs to a preset when its ratio is this close to it.
RATIO_TOLERANCE = 0.18


def token_param_preset(runs: pd.DataFrame) -> NDArray[np.float64]:
    """The preset ratio of every run of the Token/Param design; NaN where none is within 18 %.

    Parameters
    ----------
    runs
        a run table, n rows; where it has no column `experiment`, every run counts.

    Returns
    -------
    array
        float64, shape (n,).
    """
    ratio = (runs["num_tokens"] / runs["num_params"]).to_numpy(dtype=float)
    presets = np.array(PRESET_RATIOS)
    nearest = presets[np.argmin(np.abs(np.log(ratio[:, None] / presets)), axis=1)]
    result = np.where(np.abs(ratio / nearest - 1) <= RATIO_TOLERANCE, nearest, np.nan)
    if "experiment" in runs:
        result[(runs["experiment"] != "tokenparam").to_numpy()] = np.nan
    return result
