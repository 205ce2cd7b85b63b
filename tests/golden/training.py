"""Weights after a few steps of training: callbacks, distillation, optimizers, schedules."""

import keras
import numpy as np

from golden import names, networks
from golden.digest import file_content
from golden.entries import add
from golden.techniques import data_of, weights_of

SCHEDULES = {
    "by epoch": lambda: names.polynomial(0.8, 3, begin=1),
    "by step": lambda: names.polynomial(0.6, 8, initial=0.1, by="step", frequency=3),
    "constant": lambda: names.constant(0.5, begin=2),
    "function": lambda: lambda epoch: min(0.7, 0.2 * epoch),
}
PRUNING = {
    "steps": ("by step", {}),
    "global": ("by epoch", {"scope": "global"}),
    "of four": ("constant", {"granularity": "2:4", "exclude": ("first",)}),
    "taylor": ("by epoch", {"criterion": "taylor", "scope": "erk"}),
    "random blocks": ("function", {"criterion": "random", "granularity": "4x1", "seed": 5}),
}
CLUSTERING = {
    "once": (8, {}),
    "renewed": (8, {"renew": 2, "by": "step", "seed": 1}),
    "channel mean": (4, {"granularity": "channel", "gradients": "mean"}),
    "linear": (8, {"initialization": "linear", "exclude": ("head",)}),
}
RANGES = ("moving_average", "percentile", "learned")
STEPS = {
    "channels": (0.6, None),
    "channels and weights": (0.7, 0.6),
    "low rank": (0.7, None),
    "longer": (2.0, None),
    "zeros": (0.6, None),
    "values": (8, None),
}
TRIALS = {
    "zeros and values": {"mode": "int8", "sparsity": 0.5, "clusters": 8},
    "low rank": {"low_rank": 0.7},
    "aware": {"mode": "int8", "aware": True, "sparsity": 0.5},
}


def fitted(model, callbacks=(), epochs=3, optimizer=None):
    """Returns a model's weights after some epochs on its inputs."""
    networks.compiled(model, optimizer)
    x, y = data_of(model)
    told = model.fit(x, y, 16, epochs, verbose=0, shuffle=False, callbacks=list(callbacks))
    return [told.history["loss"], weights_of(model)]


def parts():
    """Returns a data set of images of noise: as many as the jobs look at with anything."""
    rng = np.random.default_rng(4)
    sizes = (1040, 40, 40)
    drawn = [
        (rng.random((n, *networks.IMAGE), np.float32), rng.integers(0, networks.CLASSES, n))
        for n in sizes
    ]
    return names.split(drawn, tuple("abcd"))


def _schedule(how):
    return names.schedule_values(SCHEDULES[how](), 20)


def _pruned(network, how):
    model = networks.build(network)
    schedule, options = PRUNING[how]
    if "taylor" in options.values():
        options = {**options, "data": data_of(model)}
    return fitted(model, [names.pruning_callback(SCHEDULES[schedule](), **options)], 4)


def _clustered(network, how):
    clusters, options = CLUSTERING[how]
    callback = names.clustering_callback(clusters, **options)
    return fitted(networks.build(network), [callback], 2)


def _pruned_and_clustered(network):
    callbacks = [names.pruning_callback(0.5), names.clustering_callback(8, renew=None)]
    return fitted(networks.build(network), callbacks, 2)


def _aware(network, ranges):
    model = networks.build(network)
    trainable = names.quantize_aware(model, names.spec(ranges=ranges), networks.inputs(model))
    return fitted(trainable, [names.freezing(1, 2)])


def _loss(how):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 9)
    student, teacher = (rng.normal(size=(9, 6)).astype(np.float32) for _ in range(2))
    return np.asarray(names.distillation_losses()[how](labels, student, teacher))


def _distance(how):
    rng = np.random.default_rng(6)
    shapes = ((7, 6, 6, 8), (7, 12, 12, 8)) if how == "attention" else ((7, 6, 6, 8),) * 2
    maps = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return np.asarray(names.transfer_distance(names.transfers("a", "b")[how], *maps))


def _distilled(how):
    student, teacher = networks.build("residual"), networks.build("grouped", 1)
    transfer = names.transfers("block1_out", "gate").get(how)
    distiller = names.distiller(student, teacher, transfer)
    distiller.compile(keras.optimizers.SGD(0.02), jit_compile=False)
    x, y = data_of(student)
    told = distiller.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
    return [told.history["loss"], weights_of(student)]


def _taught(network):
    teacher = networks.build(network)
    return names.teacher_outputs(teacher, networks.inputs(teacher))


def _muon(**settings):
    rng = np.random.default_rng(8)
    shapes = ((3, 3, 4, 8), (1, 1, 16, 4), (6, 5), (7,))
    variables = [keras.Variable(rng.normal(size=s), name=f"v{i}") for i, s in enumerate(shapes)]
    optimizer = names.muon(**settings)
    for _ in range(3):
        optimizer.apply([rng.normal(size=s).astype("float32") for s in shapes], variables)
    return [np.asarray(variable) for variable in variables]


def _fine_tuned(rebuild=False, **fields):
    model = networks.build("residual")
    names.fine_tune(model, parts(), networks.build("grouped", 1), rebuild, **fields)
    return weights_of(model)


def _step(technique):
    amount, weights = STEPS[technique]
    made = names.compress_step(
        networks.build("residual"), parts(), technique.split(" and ")[0], amount, weights
    )
    return weights_of(made)


def _dense_ranks():
    return weights_of(names.compress_step(networks.build("plain"), parts(), "dense ranks", 0.5))


def _trained_for(mode):
    return weights_of(names.compress_aware(networks.build("residual"), parts(), mode))


def _job(kind):
    kept, files = names.job(kind, networks.build("residual"), parts())
    return [weights_of(kept), [file_content(file) for file in files]]


def _epochs(how):
    todo = names.compression(**TRIALS[how])
    return [names.trial_epochs(todo, epochs) for epochs in range(1, 30)]


def _trial(how):
    model = networks.compiled(networks.build("residual"), keras.optimizers.Adam(0.003))
    found = names.compressed_in_search(model, *data_of(model), names.compression(**TRIALS[how]))
    return [weights_of(made) for made in found]


for _how in SCHEDULES:
    add(f"schedule/{_how}", _schedule, _how)
for _how in PRUNING:
    add(f"training/zeros, {_how}/residual", _pruned, "residual", _how)
add("training/zeros, steps/series", _pruned, "series", "steps")
for _how in CLUSTERING:
    add(f"training/values, {_how}/dense", _clustered, "dense", _how)
add("training/values, renewed/depthwise", _clustered, "depthwise", "renewed")
add("training/zeros and values/residual", _pruned_and_clustered, "residual")
for _how in RANGES:
    add(f"training/aware, {_how}/depthwise", _aware, "depthwise", _how)
for _how in names.distillation_losses():
    add(f"distillation/loss, {_how}", _loss, _how)
for _how in ("hint", "attention", "relations"):
    add(f"distillation/distance, {_how}", _distance, _how)
    add(f"distillation/training, {_how}", _distilled, _how)
add("distillation/training", _distilled, None)
add("distillation/teacher", _taught, "residual")
add("optimizer/usual", _muon, rate=0.01, momentum=0.95, steps=5, scale=0.2)
add("optimizer/other", _muon, rate=0.02, momentum=0.8, steps=3, scale=0.5)
add("fine-tuning/labels", _fine_tuned)
add("fine-tuning/teacher", _fine_tuned, distill=0.5, augment=("flip", "shift"), seed=2)
add("fine-tuning/rebuilt", _fine_tuned, rebuild=True, distill=0.3)
for _how in STEPS:
    add(f"compress step/{_how}", _step, _how)
add("compress step/dense ranks", _dense_ranks)
for _how in ("int8", "int8x4"):
    add(f"compress step/aware {_how}", _trained_for, _how)
for _how in TRIALS:
    add(f"trial/{_how}", _trial, _how)
    add(f"trial/epochs, {_how}", _epochs, _how)
for _how in names.JOBS:
    add(f"job/{_how}", _job, _how)
