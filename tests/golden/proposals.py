"""What searches propose, with an objective in place of training."""

import math
import tempfile

import keras_tuner as kt
import numpy as np

from golden import names, networks
from golden.entries import add

SCORE, COST = ("score", "max"), ("cost", "min")
SMALL = {"population_size": 8, "tournament_size": 3}
LEARNS = {"warmup": 8, "batch_size": 4}
SEARCHES = {
    "random": ("random", {}),
    "evolution": ("evolution", {**SMALL, "children": 1}),
    "evolution, screened": ("evolution", {**SMALL, "children": 6}),
    "evolution, crossover": ("evolution", {**SMALL, "children": 1, "crossover": 0.7}),
    "evolution, defaults": ("evolution", {}),
    "two objectives": ("evolution", {**SMALL, "two": True}),
    "building": ("reinforce", {**LEARNS, "children": 6}),
    "building, clipped": ("reinforce", {**LEARNS, "clip": 0.2, "children": 1}),
    "modifying": ("reinforce", {**LEARNS, "form": "modifying"}),
    "modifying, two": ("reinforce", {**LEARNS, "form": "modifying", "two": True}),
}
HALVED = ("random", "evolution, screened", "two objectives", "building", "modifying")


def _parameters():
    hp = kt.HyperParameters()
    for name in "abcd":
        hp.Choice(name, [0, 1, 2, 3])
    with hp.conditional_scope("a", [1, 2]):
        hp.Float("e", 0.1, 10.0, sampling="log")
    return hp


def _worth(values):
    score = sum(values[name] for name in "abc") - 0.1 * math.log(values.get("e", 1.0)) ** 2
    return {"score": score, "cost": float(values["a"] + values["d"])}


def _options(how):
    kind, options = SEARCHES[how]
    options = dict(options)
    both = [names.objective(*SCORE), names.objective(*COST)]
    options["objective"] = both if options.pop("two", False) else both[0]
    return kind, options


def _proposed(oracle, worth):
    """Runs a search's trials; returns their values."""
    found = []
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        values = dict(trial.hyperparameters.values)
        oracle.update_trial(trial.trial_id, worth(values, trial))
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        found.append(values)
    best = [trial.trial_id for trial in oracle.get_best_trials(5)]
    return [found, best, names.rank_correlation(oracle)]


def _parameter_search(how):
    kind, options = _options(how)
    with tempfile.TemporaryDirectory() as folder:
        oracle = names.oracle(kind, folder, hyperparameters=_parameters(), **options)
        return _proposed(oracle, lambda values, trial: _worth(values))


def _limited_search():
    kind, options = _options("two objectives")
    options["limits"] = names.limits(cost=3.0)
    with tempfile.TemporaryDirectory() as folder:
        oracle = names.oracle(kind, folder, hyperparameters=_parameters(), **options)
        return _proposed(oracle, lambda values, trial: _worth(values))


def _network_search(how):
    kind, options = _options(how)
    space, hp = _space(), kt.HyperParameters()
    space.declare(hp)
    with tempfile.TemporaryDirectory() as folder:
        oracle = names.oracle(kind, folder, space=space, hyperparameters=hp, **options)

        def worth(values, trial):
            arch = oracle.architecture(trial)
            size = sum(s.repeats * s.expansion * (s.filters + s.kernel) for s in arch.stages)
            return {"score": size / (1 + 0.1 * len(values)), "cost": float(size)}

        found, best, correlation = _proposed(oracle, worth)
    archs = [space.from_values(values) for values in found]
    return [[arch.key for arch in archs], best, correlation]


def _halved(how):
    kind, options = _options(how)

    def run_trial(values, epochs):
        return {"score": float(epochs + _worth(values)["score"]), "cost": float(values["d"])}

    with tempfile.TemporaryDirectory() as folder:
        tuner = names.halving_tuner(
            kind, folder, run_trial, hyperparameters=_parameters(), **options
        )
        tuner.search(epochs=9)
        values = [dict(t.hyperparameters.values) for t in tuner.oracle.trials.values()]
        return [values, names.rungs(tuner)]


def _space():
    return names.image_space((16, 16, 3), 5, "mobile")


SPACES = {
    "mobile": _space,
    "microcontroller": lambda: names.image_space((8, 8, 1), 10, "microcontroller"),
    "compressed": names.space_with_compression,
}


def _drawn(which):
    space, rng = SPACES[which](), np.random.default_rng(11)
    first = [space.sample(rng) for _ in range(20)]
    changed = [space.mutate(arch, rng) for arch in first]
    children = [space.crossover(a, b, rng) for a, b in zip(first, changed[::-1], strict=True)]
    everyone = [*first, *changed, *children]
    described = [names.described_architecture(arch) for arch in everyone]
    encoded = [space.encode(arch) for arch in everyone]
    return [str(space.size), described, encoded, [space.values(arch) for arch in everyone]]


def _built(which):
    space, rng = SPACES[which](), np.random.default_rng(12)
    model = space.build(space.sample(rng))
    layers = [[layer.name, type(layer).__name__] for layer in model.layers]
    return [layers, [list(weight.shape) for weight in model.weights]]


def _known():
    found = [names.known_architecture((32, 32, 3), 10, width) for width in (0.35, 1.0)]
    return [names.described_architecture(arch) for arch in found]


def _surrogate():
    rng = np.random.default_rng(13)
    x, at = rng.random((40, 6)), rng.random((15, 6))
    return names.surrogate(x, np.sin(3 * x[:, 0]) + x[:, 1] + 0.1 * rng.normal(size=40), at)


def _ranks():
    rng = np.random.default_rng(14)
    violations = np.maximum(0, rng.normal(size=30)).round(1)
    return names.ranks(violations.tolist(), rng.normal(size=(30, 3)).tolist())


def _front():
    rows = np.random.default_rng(15).normal(size=(40, 3)).tolist()
    return names.front(rows, ("max", "min", "min"))


def _rewards():
    cases = [(a, lat, t) for a in (0.5, 0.9) for lat in (0.4, 1.3) for t in (None, 0.7)]
    return [names.reward(*case) for case in cases]


def _inherited():
    child, parent = networks.build("space"), networks.build("space", 1)
    share = names.inherited(child, parent)
    return [share, [np.asarray(weight) for weight in child.get_weights()]]


for _how in SEARCHES:
    add(f"search/parameters/{_how}", _parameter_search, _how)
    if _how not in ("evolution, defaults", "building, clipped", "modifying, two"):
        add(f"search/networks/{_how}", _network_search, _how)
add("search/parameters/limited", _limited_search)
for _how in HALVED:
    add(f"search/halving/{_how}", _halved, _how)
for _how in SPACES:
    add(f"space/drawn/{_how}", _drawn, _how)
    add(f"space/built/{_how}", _built, _how)
add("space/known", _known)
add("search/parts/surrogate", _surrogate)
add("search/parts/ranks", _ranks)
add("search/parts/front", _front)
add("search/parts/rewards", _rewards)
add("search/parts/inherited", _inherited)
