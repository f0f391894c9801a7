"""Where the solver ended: a fitted law with the data it saw, how the fit ended, and its linear approximation."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.derivatives import Rows, from_raw, jacobian, log_predictions, make_rows
from companion.formatting import percent
from companion.laws.base import Array, Law, law_named
from companion.paths import write_whole

#: Starts that reach the best objective this closely count as having found it.
SAME_OPTIMUM = 1e-6
#: Residual degrees of freedom below which resampled runs say nothing about their scatter.
MIN_DEGREES = 5

CONVERGED, AT_BOUND, NOT_IDENTIFIED, OUT_OF_ITERATIONS = (
    "converged",
    "at a bound",
    "not identified",
    "out of iterations",
)


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A fitted law, how the fit ended, and the data it saw; `companion.fitting.Fit` adds intervals.

    Attributes
    ----------
    law
        the fitted law: an object of the class that was given to `fit`, e.g. a `LossSurface`.
    objective
        sum of weighted Huber terms.
    status
        `not identified` (parameters trade off freely on this design), which wins over all others; `at a bound`; `out of
        iterations`; `converged`.
    status_detail
        which parameters, and why; empty for `converged`.
    data
        columns num_params, num_tokens, val_loss, weight: the rows that were fitted.
    fixed, huber_delta
        the problem that was solved: parameters that were held at a value, by name; an infinite delta is least squares.
    theta
        solver parameters in the law's order (see `companion.laws.base`), shape (p,).
    start_objectives
        where each start ended, ascending, shape (R,).
    seconds
        wall time of the fit.
    """

    law: Any  # a Law
    objective: float
    status: str
    status_detail: str
    data: pd.DataFrame
    fixed: Mapping[str, float]
    huber_delta: float
    theta: Array
    start_objectives: Array
    seconds: float

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name."""
        return {name: float(value) for name, value in self.law.parameters.items()}

    @property
    def identified(self) -> bool:
        """Whether the runs determine the parameters; if not, neither they nor intervals or optima mean anything."""
        return self.status != NOT_IDENTIFIED

    @property
    def intervals_withheld(self) -> str:
        """Why no intervals can be given, in one line; empty where they can."""
        reasons = [] if self.identified else [f"the law is not identified: {self.status_detail}"]
        if self.num_rows - self.num_free < MIN_DEGREES:
            needed = self.num_free + MIN_DEGREES
            reasons.append(
                f"{self.num_rows} runs for {self.num_free} free parameters, intervals need at least {needed}"
            )
        return "; ".join(reasons)

    @property
    def num_rows(self) -> int:
        """Rows with a weight above 0."""
        return int((self.data["weight"] > 0).sum())

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which parameters of the law are free, shape (p,)."""
        return np.array([name not in self.fixed for name in self.law.PARAMETERS])

    @property
    def free_names(self) -> list[str]:
        """Names of the free parameters."""
        return [name for name in self.law.PARAMETERS if name not in self.fixed]

    @property
    def num_free(self) -> int:
        """Number of free parameters."""
        return len(self.free_names)

    @property
    def at_bound(self) -> list[str]:
        """Free parameters at the edge of the solver's box; those of E, 1e-6 and below, mean a law without a floor."""
        lower, upper = self.law.bounds()
        theta = np.where(self.free, self.theta_centered, 0.5 * (lower + upper))
        edge = 1e-9 * (upper - lower)
        outside = (theta <= lower + edge) | (theta >= upper - edge)
        return [self.law.PARAMETERS[at] for at in np.flatnonzero(outside)]

    @cached_property
    def rows(self) -> Rows:
        """The data as the solver takes it."""
        return rows_of(type(self.law), self.data, self.huber_delta)

    @property
    def theta_centered(self) -> Array:
        """`theta` for logarithms of N and D centered at their means, shape (p,)."""
        return from_raw(self.theta, self.rows)

    @cached_property
    def residuals(self) -> Array:
        """log observed minus log fitted loss, shape (n,)."""
        return self.rows.log_loss - log_predictions(self.theta_centered[None], self.rows)[0]

    @property
    def share_of_starts_at_optimum(self) -> float:
        """Share of starts that ended within 1e-6 of the best objective, between 0 and 1."""
        return float(np.mean(self.start_objectives <= self.objective * (1 + SAME_OPTIMUM) + 1e-300))

    @cached_property
    def conditioning(self) -> float:
        """Condition number of the design: d log L / d theta of the free parameters, centered, columns of unit norm."""
        return _condition_number(self._scaled_design)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Correlations of the free parameters to first order, positive ones in logarithms."""
        names = self.free_names
        inverse = np.linalg.pinv(self._design.T @ self._design)
        # from centered to plain logs: a prefactor carries its exponent along
        transform = np.eye(len(self.theta))
        for shift in self.law.SHIFTS:
            at, exponent = self.law.index(shift.prefactor), self.law.index(shift.exponent)
            transform[at, exponent] = self.rows.center[shift.variable]
        transform = transform[np.ix_(self.free, self.free)]
        covariance = transform @ inverse @ transform.T
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        return pd.DataFrame(covariance / np.outer(scale, scale), index=names, columns=names)

    @cached_property
    def _design(self) -> Array:
        first = jacobian(self.theta_centered[None], self.rows)[0][:, self.free]
        size = np.maximum(1.0, np.abs(self.residuals) / self.huber_delta)
        return first * np.sqrt(self.rows.weights / size)[:, None]

    @cached_property
    def worst_direction(self) -> Array:
        """The direction of the scaled free parameters that the runs know least about, unit norm."""
        # where runs are fewer than parameters only the full decomposition has the directions that no run sees
        few = len(self.data) < self.num_free
        return np.linalg.svd(self._scaled_design, full_matrices=few)[2][-1]

    @property
    def _scaled_design(self) -> Array:
        norms = np.linalg.norm(self._design, axis=0)
        return self._design / np.where(norms > 0, norms, 1.0)

    def summary(self) -> pd.DataFrame:
        """Parameters as a table: name, value, and whether it was free."""
        return pd.DataFrame(
            {"parameter": list(self.parameters), "value": list(self.parameters.values()), "free": self.free}
        )

    def __str__(self) -> str:
        floor = self.law.PARAMETERS[0]  # free unless it is said
        held = [
            f"{name} free" if name not in self.fixed else f"{name} = {self.fixed[name]:g}"
            for name in self.law.FIXABLE
            if name in self.fixed or name != floor
        ]
        words = [f"L = {self.law.FORMULA}", f"{self.num_rows} runs", *held, f"Huber delta {self.huber_delta:g}"]
        head = ", ".join(words)
        lines = [f"  {name:<6}{value:>14.6g}" for name, value in self.parameters.items()]
        tail = [
            f"  objective {self.objective:.8e}; {self.status}{': ' if self.status_detail else ''}{self.status_detail}",
            f"  starts at the optimum {percent(self.share_of_starts_at_optimum)}; conditioning {self.conditioning:.3g}",
        ]
        return "\n".join([head, *lines, *tail])

    def as_dict(self) -> dict[str, Any]:
        """Everything of the fit in lists, numbers and text."""
        return {
            "parameters": self.parameters,
            "objective": self.objective,
            "status": self.status,
            "status_detail": self.status_detail,
            "law": type(self.law).__name__,
            "fixed": dict(self.fixed),
            "huber_delta": None if math.isinf(self.huber_delta) else self.huber_delta,
            "theta": self.theta.tolist(),
            "start_objectives": self.start_objectives.tolist(),
            "seconds": self.seconds,
            "data": {name: column.tolist() for name, column in self.data.items()},
        }

    def to_json(self) -> str:
        """Everything of the fit as one JSON object; `from_json` takes it back."""
        return json.dumps(self.as_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The fit that `to_json` wrote; a law of one's own must have been imported.

        Raises
        ------
        InputError
            if the text is not such an object.
        """
        try:
            read = json.loads(text)
            delta = math.inf if read["huber_delta"] is None else float(read["huber_delta"])
            law = law_named(read.get("law", "LossSurface"))  # saved before there were several laws
            values = {name: float(read["parameters"][name]) for name in law.PARAMETERS}
            fixed = read["fixed"] if "fixed" in read else {} if read["gamma_free"] else {"gamma": values["gamma"]}
            return cls(
                law=law(**values),
                objective=float(read["objective"]),
                status=str(read["status"]),
                status_detail=str(read["status_detail"]),
                data=pd.DataFrame(read["data"])[["num_params", "num_tokens", "val_loss", "weight"]],
                fixed={name: float(value) for name, value in fixed.items()},
                huber_delta=delta,
                theta=np.array(read["theta"], dtype=float),
                start_objectives=np.array(read["start_objectives"], dtype=float),
                seconds=float(read["seconds"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a saved fit: {' '.join(str(error).split())}") from error

    def save(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all; see `companion.paths.write_whole` for errors."""
        write_whole(path, self.to_json())


def rows_of(law: type[Law], data: pd.DataFrame, huber_delta: float) -> Rows:
    """The columns of a fit's data as the solver takes them."""
    return make_rows(law, data["num_params"], data["num_tokens"], data["val_loss"], data["weight"], huber_delta)


def _condition_number(design: Array) -> float:
    singular = np.linalg.svd(design, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf
