"""Functional forms as small frozen objects: what is fitted, apart from how."""

from companion.laws.base import Law, law_named
from companion.laws.optimum import (
    Cost,
    FlopsPerParamAndToken,
    Models,
    Optimum,
    compute_for_loss,
    optimum,
    optimum_where,
)
from companion.laws.parabola import Parabola
from companion.laws.power_law import PowerLaw
from companion.laws.product import ProductLaw
from companion.laws.surface import LossSurface

__all__ = [
    "Cost",
    "FlopsPerParamAndToken",
    "Law",
    "LossSurface",
    "Models",
    "Optimum",
    "Parabola",
    "PowerLaw",
    "ProductLaw",
    "compute_for_loss",
    "law_named",
    "optimum",
    "optimum_where",
]
