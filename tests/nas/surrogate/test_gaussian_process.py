"""The Gaussian process, compared with that of scikit-learn."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from tfnas.nas.surrogate.gaussian_process import Surrogate, expected_improvement

# ---- surrogate


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    x = np.eye(3)[rng.integers(3, size=(40, 6))].reshape(40, -1)
    return x, x @ rng.normal(size=18) + 0.5 * rng.normal(size=40)


def reference(x, y, surrogate):
    (length, noise), amplitude = surrogate.settings, surrogate._amplitude
    kernel = ConstantKernel(amplitude) * RBF(length) + WhiteKernel(amplitude * noise)
    return GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(x, y)


def test_surrogate_equals_scikit_learn(measured):
    x, y = measured
    surrogate = Surrogate(x, y)
    expected = reference(x, (y - y.mean()) / y.std(), surrogate)
    queries = np.eye(3)[np.random.default_rng(1).integers(3, size=(9, 6))].reshape(9, -1)
    mean, deviation = expected.predict(queries, return_std=True)
    noise = surrogate._amplitude * surrogate.settings[1]
    ours = surrogate.predict(queries)
    assert ours[0] == pytest.approx(mean * y.std() + y.mean(), abs=1e-9)
    assert ours[1] == pytest.approx(np.sqrt(deviation**2 - noise) * y.std(), abs=1e-9)


def test_settings_have_the_largest_marginal_likelihood(measured):
    from tfnas.nas.surrogate.gaussian_process import LENGTHS, NOISES

    x, y = measured
    z = (y - y.mean()) / y.std()
    found = {}
    for length in LENGTHS:
        for noise in NOISES:
            one = Surrogate(x, y, (length, noise))
            found[length, noise] = reference(x, z, one).log_marginal_likelihood_value_
    assert max(found, key=found.__getitem__) == Surrogate(x, y).settings


def test_leave_one_out_equals_a_fit_without_the_example(measured):
    x, y = measured
    surrogate = Surrogate(x, y)
    z = (y - y.mean()) / y.std()
    keep = np.arange(40) != 3
    alone = reference(x[keep], z[keep], surrogate).predict(x[3:4])[0]
    assert surrogate.left_out()[3] == pytest.approx(alone * y.std() + y.mean(), abs=1e-9)
    assert 0.5 < surrogate.rank_correlation() <= 1.0


def test_equal_measurements_are_no_error():
    surrogate = Surrogate(np.eye(4), np.ones(4))
    assert surrogate.predict(np.eye(4))[0] == pytest.approx(np.ones(4))
    assert surrogate.rank_correlation() == 0.0


def test_expected_improvement_is_the_mean_improvement():
    drawn = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    found = expected_improvement(np.array([1.0]), np.array([2.0]), 1.5)[0]
    assert found == pytest.approx(np.maximum(drawn - 1.5, 0).mean(), rel=0.01)
