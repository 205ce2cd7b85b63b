"""The training of shared weights: traced once, resumed, ended in time, refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas
from tfnas.graph.finite_loss import Diverged
from tfnas.nas.supernet.member_draws import MemberDraws
from tfnas.nas.supernet.member_scores import MemberScores
from tfnas.nas.supernet.sandwich_data import SandwichData
from tfnas.nas.supernet.shared_training import SharedTraining
from tfnas.search_space.hypermodel import compile_for_search


def training(space, path, network=None, **settings):
    settings = {"epochs": 3, "random_members": 1, "learning_rate": 0.01, **settings}
    model = compile_for_search(space.build(space.smallest(np.random.default_rng(0))))
    config = tfnas.SupernetConfig(**settings)
    network = network or space.elastic_network(0)
    draws = MemberDraws(space, config.random_members)
    return SharedTraining(draws, network, model, config, 0, path)


def data(split, **more):
    return SandwichData((split.x_train, split.y_train), {"batch_size": 20, **more})


@pytest.fixture(scope="module")
def trained(space, split, tmp_path_factory):
    shared = training(space, tmp_path_factory.mktemp("shared") / "weights.npz")
    shared.logs = []
    shared.run(data(split), lambda done, total, logs: shared.logs.append((done, total, logs)))
    return shared


def weights(shared):
    return [np.asarray(variable) for variable in shared.network.trainable_variables]


def test_a_step_is_traced_once(trained):
    assert trained.step.traces == 1
    assert [(done, total) for done, total, _ in trained.logs] == [(1, 3), (2, 3), (3, 3)]


def test_all_members_learn(trained):
    first, last = trained.logs[0][2], trained.logs[-1][2]
    assert set(last) == {"loss", "teacher", "smallest"}
    assert all(last[name] < first[name] for name in last)


def test_members_of_trained_weights_are_better_than_chance(trained, space, split):
    scores = MemberScores(trained.network, split.x_train, split.x_val, split.y_val)
    rng = np.random.default_rng(0)
    found = [scores.accuracy(space.sample(rng)) for _ in range(3)]
    assert min(found) > 0.2
    assert scores.traces == 2


def test_an_interrupted_training_ends_with_the_same_weights(trained, space, split, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total, logs):
        if done == 2:
            raise Killed

    path = tmp_path / "weights.npz"
    with pytest.raises(Killed):
        training(space, path).run(data(split), kill)
    resumed = training(space, path)
    assert not resumed.restore()
    assert resumed.epoch == 2
    resumed.run(data(split))
    for found, expected in zip(weights(resumed), weights(trained), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    ended = training(space, path)
    assert ended.restore()
    for found, expected in zip(weights(ended), weights(resumed), strict=True):
        assert np.array_equal(found, expected)


def test_weights_of_another_training_are_refused(trained, space, tmp_path):
    with pytest.raises(ValueError, match=r"must be of this search.*overwrite"):
        training(space, trained.path, epochs=4).restore()
    damaged = tmp_path / "weights.npz"
    damaged.write_bytes(trained.path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        training(space, damaged).restore()


def test_a_time_limit_lowers_the_epochs_once(space, tmp_path):
    shared = training(space, tmp_path / "w.npz", epochs=100, seconds=10.0)
    shared.seconds = 3.0  # of an epoch of four steps, the first of which took 2 s
    shared._shorten(2.0, 5)
    assert shared.epochs == 1 + int(7.0 / 1.25)


def test_a_divergence_is_an_error(space, split, tmp_path):
    images = np.full((4, 8, 8, 1), np.nan, np.float32)
    shared = training(space, tmp_path / "w.npz")
    with pytest.raises(Diverged, match=r"must stay finite.*lower learning_rate"):
        shared.run(SandwichData((images, np.zeros(4, int)), {}))
    assert not shared.path.exists()


def test_data_sets_and_weights_of_examples(space, split):
    pairs = tf.data.Dataset.from_tensor_slices((split.x_train, split.y_train)).batch(50)
    stream = SandwichData((pairs,), {})
    rng = np.random.default_rng(0)
    x, y, ones = next(iter(stream.epoch(rng)))
    assert stream.steps == -(-len(split.x_train) // 50)
    assert x.shape == (50, 8, 8, 1)
    assert (y == split.y_train[:50]).all()
    assert (ones == 1).all()
    triples = tf.data.Dataset.from_tensor_slices(([[1.0]], [2], [0.5])).batch(1)
    assert [w.tolist() for *_, w in SandwichData((triples,), {}).epoch(rng)] == [[0.5]]
    weighted = data(split, sample_weight=np.arange(len(split.x_train)))
    batches = list(weighted.epoch(rng))
    assert len(batches) == weighted.steps
    assert sorted(np.concatenate([w for *_, w in batches])) == list(range(len(split.x_train)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weight": {0: 2.0}}, "class_weight must not be given"),
        ({"steps_per_epoch": 3}, "steps_per_epoch must not be given"),
        ({"y": None}, "x and y must be arrays"),
        ({"y": np.zeros(3)}, "y must hold one target per example"),
        ({"x": tf.data.Dataset.range(3).repeat(), "y": None}, "x must end"),
    ],
)
def test_arguments_that_can_not_be_used(arguments, message):
    kwargs = {"x": np.zeros((4, 8, 8, 1)), "y": np.zeros(4), **arguments}
    with pytest.raises(ValueError, match=message):
        SandwichData((), kwargs)


def test_the_loss_is_that_of_the_compiled_model(space, split, tmp_path):
    model = space.build(space.smallest(np.random.default_rng(0)))
    compile_for_search(model, loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    config = tfnas.SupernetConfig(epochs=1, random_members=0)
    draws = MemberDraws(space, 0)
    shared = SharedTraining(draws, space.elastic_network(0), model, config, 0, tmp_path / "w.npz")
    targets = keras.utils.to_categorical(split.y_train[:64], 10)
    shared.run(SandwichData((split.x_train[:64], targets), {}))
    with pytest.raises(ValueError, match="shape"):
        training(space, tmp_path / "v.npz").run(SandwichData((split.x_train[:64], targets), {}))
