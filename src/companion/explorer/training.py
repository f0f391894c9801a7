"""The explorer's data for a chapter: only what the numbers of training need, small enough for a part of a page."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from companion.explorer.numbers import Explorer
from companion.explorer.settings import Setting

#: Counts behind parameters and training FLOPs; those of serving stay away.
_COUNTS = ("num_params", "products", "core", "unembedding")
_RANGES = ("loss", "optimum")
_OF_INTERVAL = ("covariance", "residual_variance")
_SHARED = ("convention", "search", "margin", "level", "optimal", "logs_hardware")


def training_model(
    explorer: Explorer, opening: Setting, controls: Sequence[str], *, gpu_hours: bool = False
) -> dict[str, Any]:
    """`Explorer.model` without what only serving needs, its resampled laws packed.

    Parameters
    ----------
    opening
        the setting to open with.
    controls
        names of the sliders, fields of a `Setting`.
    gpu_hours
        with what GPU-hours of training need, on the hardware of `opening`.

    Returns
    -------
    dict[str, Any]
        of plain data. `laws` has the `names` of the parameters and their `samples`: little-endian float32 in
        base64, resample by resample. Laws that are resampled need no more digits: the page's law itself keeps all of
        them.

    Examples
    --------
    >>> model = training_model(Explorer.of(num_resamples=2), Setting(), ["context_length"])
    >>> [control["key"] for control in model["controls"]], sorted(model["architectures"][0]["ranges"])
    (['context'], ['loss', 'optimum'])
    """
    model = explorer.model()
    architectures = [
        {name: one[name] for name in ("name", "family", "law", "law_context")}
        | {
            "counts": {count: one["counts"][count] for count in _COUNTS},
            "laws": _packed(one["laws"]),
            "ranges": {name: one["ranges"][name] for name in _RANGES},
        }
        | ({"utilization": _short(one["utilization"])} if gpu_hours else {})
        for one in model["architectures"]
    ]
    return {name: model[name] for name in _SHARED} | {
        "architectures": architectures,
        "counted": [],
        "hardware": [
            {name: entry[name] for name in ("name", "peak_flops_per_s")}
            for entry in model["hardware"]
            if gpu_hours and entry["name"] == opening.hardware
        ],
        "controls": [control for control in model["controls"] if control["name"] in controls],
        "default": asdict(opening),
    }


def _short(utilization: dict[str, Any] | None) -> dict[str, Any] | None:
    """What gives the utilization of one model; what only its interval needs has few digits."""
    return utilization and {
        "curves": [
            {name: _rounded(value, 4 if name in _OF_INTERVAL else 8) for name, value in curve.items()}
            for curve in utilization["curves"]
        ]
    }


def _rounded(value: Any, digits: int) -> Any:
    return [_rounded(each, digits) for each in value] if isinstance(value, list) else float(f"{value:.{digits}g}")


def _packed(laws: dict[str, list[float]]) -> dict[str, Any]:
    samples = np.array(list(laws.values()), dtype="<f4").T
    return {"names": list(laws), "samples": base64.b64encode(samples.tobytes()).decode("ascii")}
