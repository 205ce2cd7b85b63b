"""The Gaussian process against scikit-learn's."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from tfnas.nas.surrogate.gaussian_process import (
    FeatureGroups,
    Surrogate,
    log_expected_improvement,
    unlikelihood,
)

GROUPS = FeatureGroups(np.repeat(np.arange(6), 3))


@pytest.fixture(scope="module")
def measured():
    """40 one-hot architectures of six decisions; two of them count."""
    rng = np.random.default_rng(0)
    choices = rng.integers(3, size=(40, 6))
    y = choices[:, 0] + 0.5 * (choices[:, 1] == 2) + 0.1 * rng.normal(size=40)
    return np.eye(3)[choices].reshape(40, -1), 0.8 + 0.05 * y


def reference(x, y, surrogate):
    """scikit-learn's process with the weights, noise and amplitude of ours."""
    amplitude, noise = surrogate._amplitude, float(np.exp(surrogate.settings[-1]))
    lengths = 1.0 / surrogate.groups.scales(surrogate.settings[:-1])
    kernel = ConstantKernel(amplitude) * RBF(lengths) + WhiteKernel(amplitude * noise)
    return GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(x, y)


@pytest.mark.parametrize("separate", [True, False])
def test_surrogate_equals_scikit_learn(measured, separate):
    x, y = measured
    surrogate = Surrogate(x, y, GROUPS, separate=separate)
    expected = reference(x, (y - y.mean()) / y.std(), surrogate)
    queries = np.eye(3)[np.random.default_rng(1).integers(3, size=(9, 6))].reshape(9, -1)
    mean, deviation = expected.predict(queries, return_std=True)
    noise = surrogate._amplitude * np.exp(surrogate.settings[-1])
    ours = surrogate.predict(queries)
    assert ours[0] == pytest.approx(mean * y.std() + y.mean(), abs=1e-9)
    assert ours[1] == pytest.approx(np.sqrt(deviation**2 - noise) * y.std(), abs=1e-9)
    assert surrogate.means(queries) == pytest.approx(ours[0], abs=1e-12)


def test_unlikelihood_is_that_of_scikit_learn_and_has_the_right_gradient(measured):
    x, y = measured
    z = (y - y.mean()) / y.std()
    rng, constant = np.random.default_rng(2), 0.5 * len(z) * (1 + np.log(2 * np.pi))
    for _ in range(3):
        settings = rng.normal(-1.0, 0.7, 7)
        loss, slope = unlikelihood(x, z, GROUPS, settings)
        one = Surrogate(x, y, GROUPS, settings=settings)
        expected = reference(x, z, one).log_marginal_likelihood_value_
        assert loss + constant == pytest.approx(-expected, rel=1e-8)
        for i, step in enumerate(1e-5 * np.eye(7)):
            high, low = (unlikelihood(x, z, GROUPS, settings + s)[0] for s in (step, -step))
            assert slope[i] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-5)


def test_decisions_that_count_get_the_largest_weights(measured):
    weights = Surrogate(*measured, GROUPS).settings[:-1]
    assert set(np.argsort(-weights)[:2]) == {0, 1}
    common = Surrogate(*measured, GROUPS, separate=False).settings[:-1]
    assert np.ptp(common) == 0.0


def test_leave_one_out_equals_a_fit_without_the_example(measured):
    x, y = measured
    surrogate = Surrogate(x, y, GROUPS)
    z = (y - y.mean()) / y.std()
    keep = np.arange(40) != 3
    alone = reference(x[keep], z[keep], surrogate).predict(x[3:4])[0]
    assert surrogate.left_out()[3] == pytest.approx(alone * y.std() + y.mean(), abs=1e-9)


def test_what_is_believed_lowers_the_deviation_and_keeps_the_mean(measured):
    x, y = measured
    surrogate, query = Surrogate(x, y, GROUPS), np.eye(3)[[[1, 0, 2, 2, 1, 0]]].reshape(1, -1)
    before, after = (s.predict(query) for s in (surrogate, surrogate.believing(query)))
    assert after[1][0] < 0.9 * before[1][0]
    assert after[0] == pytest.approx(before[0], abs=0.05 * y.std())


def test_equal_measurements_are_no_error():
    surrogate = Surrogate(np.eye(4), np.ones(4))
    assert surrogate.predict(np.eye(4))[0] == pytest.approx(np.ones(4))


def test_expected_improvement_is_the_mean_improvement():
    drawn = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    found = log_expected_improvement(np.array([1.0]), np.array([2.0]), 1.5)[0]
    assert np.exp(found) == pytest.approx(np.maximum(drawn - 1.5, 0).mean(), rel=0.01)


def test_the_logarithm_tells_apart_what_is_far_below_the_best():
    means = np.linspace(-60.0, 3.0, 400)
    found = log_expected_improvement(means, np.ones(400), 0.0)
    assert np.all(np.isfinite(found))
    assert np.all(np.diff(found) > 0)
