"""Write pages with as many processes as there are cores: jupyter-book has no option for it.

They are read one after the other: the extensions for proofs and exercises cannot merge what several processes read.
"""

import os
from typing import Any

from sphinx.application import Sphinx


def write_with_all_cores(app: Sphinx, *_: Any) -> None:
    """Called once everything is read."""
    app.parallel = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("env-check-consistency", write_with_all_cores)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
