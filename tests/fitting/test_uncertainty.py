"""Bootstrap, profiles and bands: reproducible, of the right width, honest about what they cannot do."""

import math

import numpy as np
import pytest
from simulated_tables import CHINCHILLA, simulated

from companion.errors import InputError
from companion.fitting.fit import fit
from companion.fitting.likelihood import profile, profiled
from companion.fitting.uncertainty import refit
from companion.laws import LossSurface

FIT = fit(LossSurface, simulated(CHINCHILLA, 0.004, 0), gamma=1.0)


def test_same_seed_same_bits_however_the_work_is_shared() -> None:
    alone = FIT.bootstrap(260, seed=5)
    shared = FIT.bootstrap(260, seed=5, num_jobs=2)
    np.testing.assert_array_equal(alone.theta, shared.theta)
    assert (alone.theta != FIT.bootstrap(260, seed=6).theta).any()


def test_a_dask_cluster_gives_the_same_bits() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        remote = FIT.bootstrap(130, seed=5, scheduler=cluster.scheduler_address)
    np.testing.assert_array_equal(remote.theta, FIT.bootstrap(130, seed=5).theta)


def test_a_scheduler_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="scheduler") as error:
        FIT.bootstrap(10, scheduler="nonsense://nowhere")
    assert "\n" not in str(error.value)


def test_refits_are_optima_of_their_resamples() -> None:
    weights = np.random.default_rng(0).multinomial(len(FIT.data), np.full(len(FIT.data), 1 / len(FIT.data)), size=4)
    theta = refit(FIT, weights.astype(float))
    for row in range(4):
        single = fit(LossSurface, FIT.data.assign(w=weights[row]), gamma=1.0, weights="w")
        np.testing.assert_allclose(theta[row, 3:5], single.theta[3:5], atol=2e-4)


def test_intervals_have_width_and_hold_the_fit() -> None:
    resampled = FIT.bootstrap(300)
    for name in LossSurface.PARAMETERS[:5]:
        low, high = resampled.interval(name)
        assert low < FIT.parameters[name] < high
    assert np.isnan(resampled.interval("gamma")).all()
    assert resampled.lost == 0
    assert resampled.at_bound == 0
    low, high = resampled.interval_of(lambda law: float(law.optimum(1e22)[0]))
    assert low < CHINCHILLA.optimum(1e22)[0] < high
    with pytest.raises(InputError, match="no parameter 'delta'"):
        resampled.interval("delta")


def test_bootstrap_spread_is_the_spread_over_tables() -> None:
    exponents = [fit(LossSurface, simulated(CHINCHILLA, 0.004, seed), gamma=1.0).law.beta for seed in range(40)]
    spread = np.std(FIT.bootstrap(300).samples["beta"])
    assert spread == pytest.approx(np.std(exponents), rel=0.45)


def test_clusters_widen_intervals_where_sizes_share_a_deviation() -> None:
    table = simulated(CHINCHILLA, 0.001, 0)
    sizes, label = np.unique(table["num_params"], return_inverse=True)
    table["val_loss"] *= np.exp(np.random.default_rng(1).normal(0, 0.01, sizes.size))[label]
    fitted = fit(LossSurface, table, gamma=1.0)
    single, cluster = (fitted.bootstrap(200, cluster=by).samples["alpha"].std() for by in (None, "num_params"))
    assert cluster > 1.3 * single
    with pytest.raises(InputError, match="cluster 'color'"):
        fitted.bootstrap(10, cluster="color")


def test_prediction_bands_are_wider_than_confidence_bands_and_cover_new_runs() -> None:
    resampled = FIT.bootstrap(300)
    new = simulated(CHINCHILLA, 0.004, 99)
    points = new["num_params"].to_numpy(), new["num_tokens"].to_numpy()
    low, high = resampled.prediction_band(*points)
    inner_low, inner_high = resampled.confidence_band(*points)
    assert (high - low > inner_high - inner_low).all()
    inside = ((new["val_loss"] > low) & (new["val_loss"] < high)).mean()
    assert 0.88 <= inside <= 1.0
    assert ((new["val_loss"] > inner_low) & (new["val_loss"] < inner_high)).mean() < 0.7


@pytest.mark.parametrize("parameter", ["E", "alpha", "beta"])
def test_profiles(parameter: str) -> None:
    squares = fit(LossSurface, FIT.data, gamma=1.0, huber_delta=math.inf)
    curve = profile(squares, parameter)
    assert (curve.drop > -1e-6).all()
    middle = int(np.argmin(curve.drop))
    assert curve.values[middle] == pytest.approx(squares.parameters[parameter], rel=0.05)
    assert (np.diff(curve.drop[middle:]) > -1e-6).all()
    low, high = curve.interval()
    bootstrap = squares.bootstrap(300).interval(parameter)
    assert low < squares.parameters[parameter] < high
    # two answers to one question agree on its size
    assert high - low == pytest.approx(bootstrap[1] - bootstrap[0], rel=0.4)
    narrow = curve.interval(parameter, 0.5)
    assert low < narrow[0] < narrow[1] < high


def test_profile_refuses_what_has_none() -> None:
    assert "A" not in profiled(LossSurface)
    with pytest.raises(InputError, match="profile of 'A'"):
        profile(FIT, "A")
    with pytest.raises(InputError, match="it was fixed"):
        profile(FIT, "gamma")


def test_tiny_resamples_are_lost_and_counted() -> None:
    few = fit(LossSurface, simulated(CHINCHILLA, 0.001, 0, num_sizes=3, num_ratios=4), gamma=1.0)
    resampled = few.bootstrap(200)
    assert 0 < resampled.lost < 1
    assert np.isfinite(resampled.samples.dropna()).all().all()


def test_no_interval_has_zero_width() -> None:
    # no floor and no term in D: E and B run into their bounds in every resample
    table = simulated(CHINCHILLA, 0.001, 0)
    table["val_loss"] = (
        40.0
        * table["num_params"] ** -0.15
        * (table["val_loss"] / CHINCHILLA.predict(table["num_params"], table["num_tokens"]))
    )
    fitted = fit(LossSurface, table, gamma=1.0)
    assert fitted.status != "converged"
    resampled = fitted.bootstrap(60)
    for name in LossSurface.PARAMETERS:
        low, high = resampled.interval(name)
        assert np.isnan(low) == np.isnan(high)
        assert np.isnan(low) or low < high
