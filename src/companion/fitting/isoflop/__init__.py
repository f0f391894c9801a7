"""IsoFLOP profiles: a parabola per budget, its optimum, and power laws through the optima."""

from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import (
    IsoflopFit,
    IsoflopProfile,
    fit_isoflop,
    fit_profile,
    isoflop_groups,
)
from companion.fitting.isoflop.select import isoflop_runs

__all__ = [
    "IsoflopFit",
    "IsoflopProfile",
    "JointIsoflopFit",
    "fit_isoflop",
    "fit_isoflop_joint",
    "fit_profile",
    "isoflop_groups",
    "isoflop_runs",
]
