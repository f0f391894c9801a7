"""Which kernels of others need a newer Triton than the one here. Their cells are left out, and the record says why.

Nothing here decides how a cell is measured, so it is no part of a harness (`identity`). Neither torch nor Triton is
imported at the top.
"""

import re
from importlib import metadata
from importlib.util import find_spec

#: The backward passes of flash-linear-attention with a forget gate refuse these versions of Triton on a Hopper GPU,
#: from the first (included) to the second (excluded), because these compile them wrongly.
REFUSED_FROM, NEEDED = "3.4.0", "3.7.1"
#: Starts of the names of implementations to which this applies, and the packages that do their work without Triton.
GATED: dict[str, tuple[str, ...]] = {"simple_gla": (), "gated_delta_rule": ("flash_qla", "tilelang")}
_REFUSAL = re.compile(r"Triton >= [\d.]+ and < (?P<needed>[\d.]+) on Hopper")


def left_out(implementation: str, part: str) -> str | None:
    """Why a timing of an implementation is not tried here; None if it is.

    Parameters
    ----------
    implementation
        its name in the records.
    part
        of the benchmark; only `training` has a backward pass.
    """
    start = next((name for name in GATED if implementation.startswith(name)), None)
    if start is None or part != "training" or find_spec("fla") is None:
        return None
    if not on_hopper() or any(find_spec(other) is not None for other in GATED[start]):
        return None
    here = triton_version()
    if here is None or not _numbers(REFUSED_FROM) <= _numbers(here) < _numbers(NEEDED):
        return None
    return needs_triton(NEEDED, here)


def needs_triton(needed: str, here: str | None) -> str:
    """The reason in plain words: `left out: needs Triton 3.7.1 or later, here is 3.6.0`."""
    return f"left out: needs Triton {needed} or later" + (f", here is {here}" if here else "")


def plain_reason(reason: str, triton: str | None) -> str:
    """A reason of a record in plain words: the error by which flash-linear-attention refuses a version of Triton.

    Records from before `left_out` hold that error; every other reason comes back as it is.

    Parameters
    ----------
    triton
        version that the record names.
    """
    found = _REFUSAL.search(reason)
    return needs_triton(found["needed"], triton) if found else reason


def on_hopper() -> bool:
    """Whether the GPU here is of NVIDIA's Hopper generation."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available()) and torch.cuda.get_device_capability()[0] == 9


def triton_version() -> str | None:
    """Version of the installed Triton; None without it."""
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
