"""Functional forms as small frozen objects: what is fitted, apart from how."""

from companion.laws.parabola import Parabola
from companion.laws.power_law import PowerLaw
from companion.laws.surface import LossSurface

__all__ = ["LossSurface", "Parabola", "PowerLaw"]
