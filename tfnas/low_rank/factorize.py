"""`factorize`: replaces layers of a model by low-rank factors and reports what it did.

A Dense layer or a 1 x 1 convolution becomes two layers with few channels between them. A k x k
convolution becomes k x 1 and 1 x k ("spatial"), or 1 x 1, a smaller k x k and 1 x 1 ("tucker"),
whichever loses less for the MACs that it saves. With data, the error of each layer's output is
minimized instead of the error of its kernel; a few hundred examples without labels suffice. The
result has plain Keras layers. Time does not fall as much as MACs do: measure the files
(:func:`tfnas.benchmark`). Most of the lost accuracy is recovered by
:func:`tfnas.recalibrate_batchnorm` and a few epochs of training.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.compatibility import check_float, check_uncompressed
from tfnas.graph.functional import Call, Skipped, Walk, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.macs import call_macs, check_counted, uncounted
from tfnas.keras_private import functional_inside
from tfnas.low_rank.covariance import InputCovariance, measure_covariances
from tfnas.low_rank.factorizable_layers import METHODS, FactorizableLayer, find_layers
from tfnas.low_rank.factorized_model import LayerFactors, build, check_copies, layer_factors
from tfnas.low_rank.low_rank_report import FactoredLayer, FactorizationReport
from tfnas.low_rank.options import Option, Options
from tfnas.low_rank.rank_selection import (
    Choice,
    Rank,
    by_energy,
    by_macs,
    by_rank,
    matches,
    max_saving,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfnas.data.data_types import Arrays

BATCH_SIZE = 32  # examples per forward pass


def factorize(
    model: keras.Model,
    rank: Rank | Mapping[str, Rank] | None = None,
    energy: float | None = None,
    target_macs: float | None = None,
    data: Arrays | tf.data.Dataset | keras.utils.PyDataset | None = None,
    *,
    methods: Sequence[str] = METHODS,
    exclude: Sequence[str] = (),
) -> tuple[keras.Model, FactorizationReport]:
    """Replaces layers of a model by low-rank factors; returns the new model and a report.

    A layer is replaced only if that saves MACs.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, name="d")])
        >>> smaller, report = tfnas.factorize(model, target_macs=0.5)
        >>> [layer.name for layer in smaller.layers[1:]], report.layers[0].ranks
        (['d_first', 'd_last'], (10,))

    Args:
        model: A Keras 3 model; it is not changed. A subclassed one is opened, see
            :func:`tfnas.as_functional`.
        rank: Number of channels between a layer's factors, or in (0, 1) a fraction of the full
            rank. A dict maps layer names or patterns to ranks: the first match counts, and
            other layers are not replaced. Exactly one of rank, energy and target_macs is given.
        energy: Fraction of each layer's squared singular values to keep, in (0, 1]; with data,
            of its squared output.
        target_macs: Maximum number of multiply-accumulates per example; in (0, 1] a fraction
            of the model's. Ranks are chosen for all layers together.
        data: Typical inputs, preprocessed as for training: arrays such as
            (examples, height, width, channels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`; labels are ignored. None: errors are those of the kernels.
        methods: Some of "svd" (Dense and 1 x 1), "spatial" and "tucker" (k x k).
        exclude: Names or patterns of layers that are not replaced.

    Returns:
        A new functional model (nested models become flat), not compiled, and a report of all
        layers.

    Raises:
        ValueError: An argument is invalid, a pattern matches no layer, the target can't be met
            (the message has the smallest possible one), an item of `rank` names no layer that
            can be factorized, or the model is pruned, clustered or quantization-aware already,
            which would be lost.

    References:
        Jaderberg et al. 2014; Zhang et al. 2015; Kim et al. 2016; see
        :mod:`tfnas.low_rank.svd` and :mod:`tfnas.low_rank.tucker`.
    """
    _check(rank, energy, target_macs)
    if target_macs is not None:
        model = as_functional(model, data)
        check_counted(walk(model).calls, "target_macs")
    return _factorize(
        model,
        lambda layers, flow: _choose(layers, rank, energy, target_macs, flow),
        data,
        methods,
        exclude,
        rank if isinstance(rank, Mapping) else None,
    )


def factorize_again(
    model: keras.Model,
    report: FactorizationReport,
    data: Arrays | tf.data.Dataset | keras.utils.PyDataset | None = None,
    *,
    methods: Sequence[str] = METHODS,
    exclude: Sequence[str] = (),
) -> keras.Model:
    """Returns a model whose layers have the factors of an earlier :func:`factorize`.

    Args:
        model: The model that was factorized, of the same layers; it is not changed.
        report: The report on its factorization, of which methods and ranks are taken.
        data: As for :func:`factorize`, as are all following arguments.
        methods: Factorizations that were allowed.
        exclude: Names or patterns of layers that are not replaced.

    Raises:
        ValueError: An argument is invalid.
    """
    found = {layer.name: layer for layer in report.layers}

    def same(layers: Sequence[Options], flow: Walk) -> list[Choice]:
        own = [(options, found.get(options.unit.name)) for options in layers]
        return [o.at(each.method, each.ranks) if each else "as before" for o, each in own]

    # No rank needs a check: the first factorization checked them.
    return _factorize(model, same, data, methods, exclude, rank={})[0]


def _factorize(
    model: keras.Model,
    choose: Callable[[Sequence[Options], Walk], list[Choice]],
    data: Any,
    methods: Sequence[str],
    exclude: Sequence[str],
    rank: Mapping[str, Rank] | None = None,
) -> tuple[keras.Model, FactorizationReport]:
    check_float(model, "factorize")
    model = as_functional(model, data)
    methods = _methods(methods)
    flow = walk(model)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    _check_patterns("exclude", exclude, flow)
    _check_patterns("rank", rank or (), flow)
    _check_uncompressed(flow, exclude, ("*",) if rank is None else rank)
    batches = None if data is None else _batches(model, data)
    check_copies(flow)  # fails early, before long computations
    units, skipped = _candidates(flow, methods, exclude)
    _check_factorizable(rank or (), exclude, units, skipped)
    covariances = None
    if batches is not None:
        covariances = measure_covariances(model, [unit.layer for unit in units], batches)
    layers = [_options(unit, covariances) for unit in units]
    choices = choose(layers, flow)
    factors: list[LayerFactors] = []
    for options, choice in zip(layers, choices, strict=True):
        if isinstance(choice, Option):
            mean = None if covariances is None else covariances[id(options.unit.layer)].mean
            factors.append(layer_factors(options, choice, mean))
        else:
            unit = options.unit
            skipped.append(Skipped(unit.name, type(unit.layer).__name__, choice))
    smaller = build(model, flow, factors)
    parameters = model.count_params(), smaller.count_params()
    return smaller, _report(flow, factors, skipped, parameters, data is not None)


def _check(rank: Any, energy: Any, target_macs: Any) -> None:
    arguments = {"rank": rank, "energy": energy, "target_macs": target_macs}
    present = [name for name, value in arguments.items() if value is not None]
    if len(present) != 1:
        raise ValueError(
            f"exactly one of rank, energy and target_macs must be given, got "
            f"{' and '.join(present) or 'none'}"
        )
    if energy is not None and not (_is_number(energy) and 0 < energy <= 1):
        raise ValueError(f"energy must be in (0, 1], got {energy!r}")
    if target_macs is not None and not (_is_number(target_macs) and target_macs > 0):
        raise ValueError(f"target_macs must be a number above 0, got {target_macs!r}")
    if isinstance(rank, Mapping) and not rank:
        raise ValueError("rank must name layers, got {}")
    for value in rank.values() if isinstance(rank, Mapping) else [rank] * (rank is not None):
        is_integer = isinstance(value, numbers.Integral) and int(value) >= 1
        if not (_is_number(value) and (is_integer or 0 < value < 1)):
            raise ValueError(
                f"rank must be a whole number >= 1, or a fraction in (0, 1), got {value!r}"
            )


def _check_uncompressed(flow: Walk, exclude: Sequence[str], patterns: Iterable[str]) -> None:
    """Raises ValueError for zeros or shared values in layers that are to be factorized."""
    for call in flow.calls:
        kernel = getattr(call.operation, "kernel", None)
        selected = any(matches(pattern, call.name) for pattern in patterns)
        if kernel is None or not selected or any(matches(p, call.name) for p in exclude):
            continue
        check_uncompressed(
            call.name, np.asarray(kernel), "factorize", ", or name the layer in exclude"
        )


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _methods(methods: Sequence[str]) -> tuple[str, ...]:
    names = (methods,) if isinstance(methods, str) else tuple(methods)
    if not names or not set(names) <= set(METHODS):
        raise ValueError(f"methods must be some of {', '.join(METHODS)}, got {methods!r}")
    return tuple(method for method in METHODS if method in names)


def _check_patterns(argument: str, patterns: Any, flow: Walk) -> None:
    for pattern in patterns:
        known = isinstance(pattern, str) and any(matches(pattern, c.name) for c in flow.calls)
        if not known:
            raise ValueError(f"{argument} must name layers, got {pattern!r}, which matches none")


def _check_factorizable(
    patterns: Iterable[str],
    exclude: Sequence[str],
    units: Sequence[FactorizableLayer],
    skipped: Sequence[Skipped],
) -> None:
    """Raises ValueError if a pattern of `rank` matches only layers that can't be factorized."""
    for pattern in patterns:
        matched = [s for s in skipped if matches(pattern, s.name)]
        excluded = any(matches(name, s.name) for s in matched for name in exclude)
        if excluded or any(matches(pattern, unit.name) for unit in units):
            continue
        reasons = [f"{s.name}: {s.reason}" for s in matched]
        raise ValueError(
            f"rank must name layers that can be factorized, got {pattern!r}: "
            f"{'; '.join(reasons) or 'nothing in it has a kernel'}"
        )


def _batches(model: Any, data: Any) -> list[Any]:
    """Splits data into batches with the structure of the model's inputs."""
    import keras

    columns = fitting_columns(model, data)
    count = len(columns[0])
    if not count:
        raise ValueError("data must hold at least one example, got none")
    structure = functional_inside(model).input
    return [
        keras.tree.pack_sequence_as(structure, [column[i : i + BATCH_SIZE] for column in columns])
        for i in range(0, count, BATCH_SIZE)
    ]


def _candidates(
    flow: Walk, methods: tuple[str, ...], exclude: tuple[str, ...]
) -> tuple[list[FactorizableLayer], list[Skipped]]:
    units, skipped = find_layers(flow, methods)
    excluded = {
        id(call.operation)
        for call in flow.calls
        if any(matches(pattern, call.name) for pattern in exclude)
    }
    skipped += [
        Skipped(unit.name, type(unit.layer).__name__, "named in exclude")
        for unit in units
        if id(unit.layer) in excluded
    ]
    return [unit for unit in units if id(unit.layer) not in excluded], skipped


def _options(unit: FactorizableLayer, covariances: Mapping[int, InputCovariance] | None) -> Options:
    """Uses central moments where a bias or BatchNormalization compensates the mean."""
    if covariances is None:
        return Options(unit)
    covariance, central = covariances[id(unit.layer)], unit.absorbs_mean
    estimate = covariance.shrinkage_estimate(central)
    return Options(unit, estimate, covariance.second_moments(central))


def _choose(
    layers: Sequence[Options],
    rank: Rank | Mapping[str, Rank] | None,
    energy: float | None,
    target_macs: float | None,
    flow: Walk,
) -> list[Choice]:
    if rank is not None:
        return by_rank(layers, rank)
    if energy is not None:
        return by_energy(layers, energy)
    assert target_macs is not None
    total = _macs(flow.calls)
    limit = math.floor(target_macs * total if target_macs <= 1 else target_macs)
    choices = by_macs(layers, total - limit)
    if choices is None:
        least = total - sum(max_saving(options) for options in layers)
        raise ValueError(
            f"target_macs can't be met: got {target_macs:g}, and with all factorizable layers at "
            f"rank 1 the model has {least:,} of {total:,} MACs, a fraction of {least / total:.3f}"
        )
    return choices


def _macs(calls: Sequence[Call]) -> int:
    return sum(call_macs(call) or 0 for call in calls)


def _report(
    flow: Walk,
    factors: Sequence[LayerFactors],
    skipped: list[Skipped],
    parameters: tuple[int, int],
    weighted: bool,
) -> FactorizationReport:
    order = {call.name: place for place, call in enumerate(reversed(flow.calls))}
    total = _macs(flow.calls)
    unknown = uncounted(flow.calls)
    counted = [layer for layer in factors if layer.unit.name not in unknown]
    saved = sum(layer.unit.macs - layer.option.macs for layer in counted)
    notes = []
    if not factors:
        notes.append("no layer was replaced: the model is unchanged")
    if unknown:
        names = ", ".join(unknown)
        notes.append(f"MACs are at least these: those of some layers are unknown: {names}")
    return FactorizationReport(
        tuple(_factored_layer(layer) for layer in factors),
        tuple(sorted(skipped, key=lambda layer: -order[layer.name])),
        (total, total - saved),
        parameters,
        weighted,
        tuple(notes),
    )


def _factored_layer(factors: LayerFactors) -> FactoredLayer:
    unit, option = factors.unit, factors.option
    bias = unit.kernel.shape[-1] if unit.layer.use_bias else 0
    return FactoredLayer(
        unit.name,
        type(unit.layer).__name__,
        option.method,
        option.ranks,
        (unit.macs, option.macs),
        (unit.kernel.size + bias, factors.parameters),
        option.error,
    )
