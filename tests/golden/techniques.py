"""Masks, channels, clusters, factors, folded normalizations."""

import numpy as np

from golden import names, networks
from golden.entries import add

PRUNED = ("residual", "dense", "separable")
MASKS = {
    "least": {"sparsity": 0.6},
    "global": {"sparsity": 0.7, "scope": "global"},
    "by shape": {"sparsity": 0.7, "scope": "erk"},
    "by layer": {"scope": {"head": 0.2, "*": 0.5}},
    "threshold": {"threshold": 0.1},
    "blocks": {"sparsity": 0.5, "granularity": "1x4"},
    "tall blocks": {"sparsity": 0.5, "granularity": "4x1", "scope": "global"},
    "of four": {"sparsity": 0.5, "granularity": "2:4", "exclude": ("first",)},
    "filters": {"sparsity": 0.4, "granularity": "filter", "exclude": ("last",)},
    "random": {"sparsity": 0.5, "criterion": "random"},
    "taylor": {"sparsity": 0.6, "criterion": "taylor", "scope": "global"},
    "gradient": {"sparsity": 0.6, "criterion": "gradient"},
    "surgeon": {"sparsity": 0.5, "criterion": "obs"},
    "surgeon by output": {"sparsity": 0.6, "criterion": "obs", "scope": "output"},
    "refitted": {"sparsity": 0.6, "reconstruct": True},
}
WITH_DATA = ("taylor", "gradient", "surgeon", "surgeon by output", "refitted")
CHANNELS = {
    "l1": {"ratio": 0.4, "criterion": "l1"},
    "l2 by group": {"ratio": 0.3, "scope": "group"},
    "l2 by saving": {"target_macs": 0.6, "scope": "saving"},
    "scale": {"target_macs": 0.6, "criterion": "scale", "round_to": 4},
    "random": {"target_params": 0.7, "criterion": "random", "seed": 3},
    "taylor": {"target_macs": 0.5, "criterion": "taylor"},
    "latency": {"target_latency_ratio": 0.7},
    "stem stays": {"target_params": 0.6, "exclude": ("stem",), "max_ratio": 0.7},
}
CLUSTERS = {
    "layer": (16, {}),
    "channel": (4, {"granularity": "channel"}),
    "linear": (8, {"initialization": "linear"}),
    "density": (8, {"initialization": "density"}),
    "zeros": (8, {"zeros": True}),
    "weighted": (8, {}),
    "excluded": (8, {"exclude": ("head",), "fold": False}),
}
FACTORS = {
    "rank": {"rank": 3},
    "ranks": {"rank": {"head": 2, "*": 0.4}},
    "energy": {"energy": 0.7},
    "MACs": {"target_macs": 0.7},
    "data": {"target_macs": 0.7},
    "tucker": {"energy": 0.6, "methods": ("tucker",)},
}


def data_of(model):
    """Returns a model's inputs and targets."""
    return networks.inputs(model), networks.targets(model)


def weights_of(model):
    """Returns a model's weights in their order."""
    return [np.asarray(weight) for weight in model.get_weights()]


def _masks(network, how):
    model = networks.compiled(networks.build(network))
    options = dict(MASKS[how])
    if how in WITH_DATA:
        options["data"] = data_of(model)
    copy, zeros = names.prune(model, **options)
    return [zeros, [weight != 0 for weight in weights_of(copy)], weights_of(copy)]


def _sensitivity(network):
    model = networks.build(network)
    x = networks.inputs(model, 16)
    return names.sensitivity(model, lambda m: float(np.square(m(x)).mean()), 0.6)


def _channels(network, how):
    model = networks.compiled(networks.build(network))
    options = dict(CHANNELS[how])
    if how == "taylor":
        options["data"] = data_of(model)
    if how == "latency":
        options["latency"] = lambda m: float(sum(w.size**0.8 for w in m.get_weights()))
    smaller, groups = names.prune_channels(model, **options)
    return [groups, weights_of(smaller)]


def _channels_in_steps(network):
    model = networks.compiled(networks.build(network))
    made = names.prune_channels_in_steps(model, 0.4, steps=3, fit=lambda m, step: None)
    return weights_of(made)


def _clusters(network, how):
    model = networks.build(network)
    clusters, options = CLUSTERS[how]
    if how == "weighted":
        options = {"data": networks.inputs(model)}
    if how == "zeros":
        model, _ = names.prune(model, 0.5)
    copy, rows = names.cluster(model, clusters, **options)
    return [rows, weights_of(copy)]


def _factors(network, how):
    model = networks.build(network)
    options = dict(FACTORS[how])
    if how == "data":
        options["data"] = networks.inputs(model)
    thin, rows = names.factorize(model, **options)
    return [rows, weights_of(thin)]


def _folded(network):
    copy, layers = names.fold_batchnorm(networks.build(network))
    return [layers, weights_of(copy)]


def _measured(network):
    model = networks.build(network)
    names.measure_batchnorm(model, networks.inputs(model))
    return weights_of(model)


def _corrected(network):
    model = networks.build(network)
    x = networks.inputs(model)
    rounded = names.quantize_aware(model, "int8x4", x)
    return [names.correct_bias(rounded, model, x), weights_of(rounded)]


def _stripped(network):
    model = networks.build(network)
    rounded = names.quantize_aware(model, "int8", networks.inputs(model))
    plain = names.float_again(rounded)
    return [names.unquantized(rounded), weights_of(rounded), weights_of(plain)]


for _how in MASKS:
    for _network in PRUNED if _how not in ("of four",) else ("residual",):
        add(f"masks/{_how}/{_network}", _masks, _network, _how)
for _network in ("series", "transposed", "grouped", "depthwise"):
    add(f"masks/least/{_network}", _masks, _network, "least")
add("sensitivity/plain", _sensitivity, "plain")
for _how in CHANNELS:
    for _network in ("residual", "grouped", "separable"):
        add(f"channels/{_how}/{_network}", _channels, _network, _how)
for _network in ("space", "series", "plain", "two_ends", "transposed"):
    add(f"channels/l1/{_network}", _channels, _network, "l1")
add("channels/steps/residual", _channels_in_steps, "residual")
for _how in CLUSTERS:
    for _network in ("residual", "transposed" if _how != "excluded" else "dense"):
        add(f"clusters/{_how}/{_network}", _clusters, _network, _how)
for _how in FACTORS:
    for _network in ("residual", "dense" if _how not in ("tucker",) else "plain"):
        add(f"factors/{_how}/{_network}", _factors, _network, _how)
for _network in networks.NETWORKS:
    if _network not in ("plain",):
        add(f"folded/{_network}", _folded, _network)
        add(f"statistics/{_network}", _measured, _network)
    add(f"rounded/{_network}", _stripped, _network)
for _network in ("residual", "depthwise", "space"):
    add(f"corrected/{_network}", _corrected, _network)
