"""What the settings of a run do to its loss and its chance to diverge: every formula with its source.

The *forms* are those of the literature; their sizes are drawn for every world (`companion.study.laboratory.world`), in
ranges that reports of small language models make plausible. They are no measurement of this project.
"""

import math
from dataclasses import dataclass

#: Tokens per step and parameters at which a world states its best learning rate.
REFERENCE_BATCH, REFERENCE_SIZE = 2.0**18, 1e8
#: Loss exponent of the critical batch size: alpha_B of arXiv 2001.08361, equation 1.4.
CRITICAL_EXPONENT = 0.21


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Sizes of all effects of one architecture in one world.

    Attributes
    ----------
    best_rate, rate_size_exponent, rate_batch_exponent
        of the best learning rate, see `best_learning_rate`.
    rate_curvature
        of log loss in the log of the learning rate.
    stable_factor, stable_width
        the learning rate that half of the runs survive, over the best one, and the softness of that edge in its log.
    warmup_needed
        steps of warm-up below which the stable learning rate falls.
    critical_batch
        B* in tokens, see `critical_batch_size`.
    schedule_costs
        what a schedule adds to log loss, by name.
    """

    best_rate: float
    rate_size_exponent: float
    rate_batch_exponent: float
    rate_curvature: float
    stable_factor: float
    stable_width: float
    warmup_needed: float
    critical_batch: float
    schedule_costs: dict[str, float]

    def best_learning_rate(self, num_params: float, batch_tokens: float) -> float:
        """η*(N, B) = η₀ · (N/10⁸)^−a · (B/2¹⁸)^b.

        A power law in size: arXiv 2401.02954 (there over compute). In the batch the exponent b is near 1/2, the
        square-root rule of adaptive optimizers (arXiv 2205.10287).
        """
        in_size = (num_params / REFERENCE_SIZE) ** -self.rate_size_exponent
        return self.best_rate * in_size * (batch_tokens / REFERENCE_BATCH) ** self.rate_batch_exponent

    def rate_cost(self, learning_rate: float, num_params: float, batch_tokens: float) -> float:
        """What a learning rate adds to log loss: c · (ln η − ln η*)².

        Loss over the log of the rate is a valley in sweeps such as those of arXiv 2309.14322; a parabola is the
        simplest one.
        """
        distance = math.log(learning_rate / self.best_learning_rate(num_params, batch_tokens))
        return self.rate_curvature * distance**2

    def divergence_probability(
        self, learning_rate: float, num_params: float, batch_tokens: float, warmup_steps: int
    ) -> float:
        """Chance that a run diverges: logistic in ln η about a stable learning rate, which a short warm-up lowers.

        The stable rate is m·η*·min(1, ((w + 1)/(w* + 1))^½) with w steps of warm-up. That instability begins above a
        learning rate, and that longer warm-ups move it up: arXiv 2309.14322.
        """
        warmed = min(1.0, math.sqrt((warmup_steps + 1) / (self.warmup_needed + 1)))
        stable = self.stable_factor * warmed * self.best_learning_rate(num_params, batch_tokens)
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, math.log(learning_rate / stable) / self.stable_width))))

    def critical_batch_size(self, loss: float) -> float:
        """B_crit(L) = B*/L^(1/alpha_B) in tokens (arXiv 2001.08361, equation 1.4; alpha_B = 0.21)."""
        return self.critical_batch / loss ** (1 / CRITICAL_EXPONENT)

    def useful_tokens(self, num_tokens: float, batch_tokens: float, loss: float) -> float:
        """D / (1 + B/B_crit): the tokens that a tiny batch would need for the same progress.

        (S/S_min − 1)(E/E_min − 1) = 1 with B_crit = E_min/S_min, so E = E_min·(1 + B/B_crit): arXiv 1812.06162, in the
        form of arXiv 2001.08361, equation 5.1.
        """
        return num_tokens / (1 + batch_tokens / self.critical_batch_size(loss))
