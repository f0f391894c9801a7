"""What an experienced reader notices in a run table that passes all checks, and that changes conclusions.

A finding is not an error: the table loads, and may be right. The rows that a message names are those of the index, so a
table from `companion.runs.load.read_runs` is named as a spreadsheet does.
"""

import pandas as pd

from companion.runs.findings.base import Finding
from companion.runs.findings.design import design_findings
from companion.runs.findings.flops import flops_findings, label_findings, ratio_range
from companion.runs.findings.losses import loss_findings

__all__ = ["Finding", "find_all", "ratio_range"]


def find_all(runs: pd.DataFrame) -> list[Finding]:
    """All findings on a table that `companion.runs.load.check_runs` accepts, the most consequential first."""
    return [*flops_findings(runs), *label_findings(runs), *loss_findings(runs), *design_findings(runs)]
