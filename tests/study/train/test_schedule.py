"""Learning rates: values by hand, and what holds for every schedule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.train.schedule import cooldown_steps, cosine_shares, schedule_shares, wsd_shares


def test_a_cosine_by_hand() -> None:
    shares = cosine_shares(range(8), train_steps=8, warmup_steps=4, final_share=0.2)
    angles = (math.cos(math.pi * x) for x in (0.25, 0.5, 0.75, 1.0))
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, *(0.2 + 0.8 * (1 + c) / 2 for c in angles)])


def test_a_cool_down_by_hand() -> None:
    shares = wsd_shares(range(10), train_steps=10, warmup_steps=2, final_share=0.1, cooldown_share=0.4)
    falling = [1 - 0.9 * math.sqrt(x) for x in (0.25, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 1, *falling])


@given(
    schedule=st.sampled_from(["cosine", "wsd"]),
    train_steps=st.integers(1, 3000),
    warm=st.floats(0, 1),
    cool=st.floats(0, 1),
    final_share=st.floats(0, 1),
)
def test_rates_rise_to_the_peak_and_fall_to_the_final_share(
    schedule: str, train_steps: int, warm: float, cool: float, final_share: float
) -> None:
    warmup_steps = int(warm * (train_steps - cooldown_steps(train_steps, cool)))
    settings = {"train_steps": train_steps, "warmup_steps": warmup_steps, "final_share": final_share}
    shares = schedule_shares(schedule, np.arange(train_steps), **settings, cooldown_share=cool)
    assert shares.shape == (train_steps,)
    assert np.all(np.diff(shares[:warmup_steps]) > 0)
    assert np.all(np.diff(shares[max(0, warmup_steps - 1) :]) <= 1e-12)
    assert shares.max() <= 1
    falls = cooldown_steps(train_steps, cool) if schedule == "wsd" else train_steps - warmup_steps
    assert shares[-1] == pytest.approx(final_share if falls else 1.0)
    each = [float(schedule_shares(schedule, n, **settings, cooldown_share=cool)) for n in range(min(train_steps, 20))]
    assert each == shares[:20].tolist()


def test_an_unknown_schedule() -> None:
    with pytest.raises(InputError, match="'linear' is not known; there are cosine, wsd"):
        schedule_shares("linear", [0])
