"""`factorize`: from a model and ranks, an energy or a target to a low-rank model and a report.

A Dense layer or a 1 x 1 convolution becomes two layers with few channels between them. A k x k
convolution becomes k x 1 and then 1 x k ("spatial"), or 1 x 1, a smaller k x k and 1 x 1
("tucker"), whichever loses less for what it saves. Give data: the error that is kept small is
then that of each layer's output on it, not that of its kernel, and a few hundred examples
without labels suffice. What comes out are plain Keras layers. Fewer multiplications are not as
much less time: measure the files (:func:`tfnas.benchmark`). Most of the accuracy lost comes
back with :func:`tfnas.recalibrate_batchnorm` and a few epochs of training.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.compatibility import check_float, check_uncompressed
from tfnas.graph.functional import Call, Skipped, Walk, walk
from tfnas.graph.macs import call_macs
from tfnas.low_rank.covariance import InputCovariance, measure
from tfnas.low_rank.factorizable_layers import METHODS, FactorizableLayer, units_of
from tfnas.low_rank.factorized_model import Factored, build, check_copies, factored
from tfnas.low_rank.low_rank_report import FactoredLayer, FactorizationReport
from tfnas.low_rank.options import Option, Options
from tfnas.low_rank.rank_selection import (
    Choice,
    Rank,
    by_energy,
    by_macs,
    by_rank,
    matches,
    most_saved,
)

BATCH = 32  # examples a forward pass


def factorize(
    model: Any,
    rank: Rank | Mapping[str, Rank] | None = None,
    energy: float | None = None,
    target_macs: float | None = None,
    data: Any = None,
    *,
    methods: Sequence[str] = METHODS,
    exclude: Sequence[str] = (),
) -> tuple[Any, FactorizationReport]:
    """Returns a model whose layers are products of thinner ones, and a report.

    A layer is replaced only where that multiplies less.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, name="d")])
        >>> smaller, report = tfnas.factorize(model, target_macs=0.5)
        >>> [layer.name for layer in smaller.layers[1:]], report.layers[0].ranks
        (['d_first', 'd_last'], (10,))

    Args:
        model: A built functional or Sequential Keras 3 model; it stays as it is.
        rank: Channels between a layer's factors; in (0, 1): as a share of the full rank. A dict
            gives such by layers' names or patterns, the first that matches counts, and leaves
            other layers. One of rank, energy and target_macs is given.
        energy: Share of each layer's squared singular values that stays, in (0, 1]; with data
            of its squared output.
        target_macs: Most multiply-accumulates an example, met from below; in (0, 1]: as a
            share of the model's. Ranks are chosen for all layers together.
        data: Typical inputs, prepared as for training; labels are ignored. None: the error is
            that of the kernels.
        methods: Some of "svd" (Dense and 1 x 1), "spatial" and "tucker" (k x k).
        exclude: Names or patterns of layers that stay.

    Returns:
        A new functional model (nested models become flat), not compiled, and what became of
        each layer.

    Raises:
        ValueError: An argument is outside its rule, a pattern matches no layer, the target
            can't be met (the message tells how near one can get), an entry of `rank` names no
            layer that can be factorized, or the model is pruned, clustered or
            quantization-aware already, which would be lost.

    References:
        Jaderberg et al. 2014; Zhang et al. 2015; Kim et al. 2016; see
        :mod:`tfnas.low_rank.svd` and :mod:`tfnas.low_rank.tucker`.
    """
    _check(rank, energy, target_macs)
    check_float(model, "factorize")
    methods = _methods(methods)
    flow = walk(model)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    _check_patterns("exclude", exclude, flow)
    _check_patterns("rank", rank if isinstance(rank, Mapping) else (), flow)
    _check_dense(flow, exclude, rank if isinstance(rank, Mapping) else ("*",))
    batches = None if data is None else _batches(model, data)
    check_copies(flow)  # what can't be copied shows before long work
    units, left = _candidates(flow, methods, exclude)
    _check_able(rank if isinstance(rank, Mapping) else (), exclude, units, left)
    moments = None if batches is None else measure(model, [u.layer for u in units], batches)
    layers = [_options(unit, moments) for unit in units]
    choices = _chosen(layers, rank, energy, target_macs, flow)
    parts: list[Factored] = []
    for options, choice in zip(layers, choices, strict=True):
        if isinstance(choice, Option):
            mean = None if moments is None else moments[id(options.unit.layer)].mean
            parts.append(factored(options, choice, mean))
        else:
            unit = options.unit
            left.append(Skipped(unit.name, type(unit.layer).__name__, choice))
    smaller = build(model, flow, parts)
    sizes = model.count_params(), smaller.count_params()
    return smaller, _report(flow, parts, left, sizes, data is not None)


def _check(rank: Any, energy: Any, target_macs: Any) -> None:
    given = {"rank": rank, "energy": energy, "target_macs": target_macs}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ValueError(
            f"exactly one of rank, energy and target_macs must be given, got "
            f"{' and '.join(chosen) or 'none'}"
        )
    if energy is not None and not (_is_number(energy) and 0 < energy <= 1):
        raise ValueError(f"energy must be in (0, 1], got {energy!r}")
    if target_macs is not None and not (_is_number(target_macs) and target_macs > 0):
        raise ValueError(f"target_macs must be a number above 0, got {target_macs!r}")
    if isinstance(rank, Mapping) and not rank:
        raise ValueError("rank must name layers, got {}")
    for value in rank.values() if isinstance(rank, Mapping) else [rank] * (rank is not None):
        whole = isinstance(value, numbers.Integral) and int(value) >= 1
        if not (_is_number(value) and (whole or 0 < value < 1)):
            raise ValueError(
                f"rank must be a whole number from 1 on, or a share in (0, 1), got {value!r}"
            )


def _check_dense(flow: Walk, exclude: Sequence[str], wanted: Iterable[str]) -> None:
    """Refuses zeros and shared values in what is to be factorized."""
    for call in flow.calls:
        kernel = getattr(call.operation, "kernel", None)
        named = any(matches(pattern, call.name) for pattern in wanted)
        if kernel is None or not named or any(matches(p, call.name) for p in exclude):
            continue
        check_uncompressed(
            call.name, np.asarray(kernel), "factorize", ", or exclude names the layer"
        )


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _methods(given: Sequence[str]) -> tuple[str, ...]:
    chosen = (given,) if isinstance(given, str) else tuple(given)
    if not chosen or not set(chosen) <= set(METHODS):
        raise ValueError(f"methods must be some of {', '.join(METHODS)}, got {given!r}")
    return tuple(method for method in METHODS if method in chosen)


def _check_patterns(argument: str, patterns: Any, flow: Walk) -> None:
    for pattern in patterns:
        known = isinstance(pattern, str) and any(matches(pattern, c.name) for c in flow.calls)
        if not known:
            raise ValueError(f"{argument} must name layers, got {pattern!r}, which matches none")


def _check_able(
    patterns: Iterable[str],
    exclude: Sequence[str],
    units: Sequence[FactorizableLayer],
    left: Sequence[Skipped],
) -> None:
    """Raises ValueError where an entry of `rank` names nothing but layers that must stay."""
    for pattern in patterns:
        stay = [s for s in left if matches(pattern, s.name)]
        excluded = any(matches(name, s.name) for s in stay for name in exclude)
        if excluded or any(matches(pattern, unit.name) for unit in units):
            continue
        why = [f"{s.name}: {s.reason}" for s in stay]
        raise ValueError(
            f"rank must name layers that can be factorized, got {pattern!r}: "
            f"{'; '.join(why) or 'nothing in it multiplies by a kernel of its own'}"
        )


def _batches(model: Any, data: Any) -> list[Any]:
    """The model's inputs, in its own structure, batch by batch."""
    import keras

    columns = fitting_columns(model, data)
    count = len(columns[0])
    if not count:
        raise ValueError("data must hold at least one example, got none")
    graph = getattr(model, "_functional", None) or model  # Sequential keeps one once it is built
    return [
        keras.tree.pack_sequence_as(graph.input, [column[i : i + BATCH] for column in columns])
        for i in range(0, count, BATCH)
    ]


def _candidates(
    flow: Walk, methods: tuple[str, ...], exclude: tuple[str, ...]
) -> tuple[list[FactorizableLayer], list[Skipped]]:
    units, left = units_of(flow, methods)
    kept = {
        id(call.operation)
        for call in flow.calls
        if any(matches(pattern, call.name) for pattern in exclude)
    }
    left += [
        Skipped(unit.name, type(unit.layer).__name__, "exclude names it")
        for unit in units
        if id(unit.layer) in kept
    ]
    return [unit for unit in units if id(unit.layer) not in kept], left


def _options(unit: FactorizableLayer, moments: Mapping[int, InputCovariance] | None) -> Options:
    """Moments are about the mean where a bias or BatchNormalization takes up its shift."""
    if moments is None:
        return Options(unit)
    found, central = moments[id(unit.layer)], unit.absorbs_mean
    return Options(unit, found.shrunk(central), found.second(central))


def _chosen(
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
    whole = _macs(flow.calls)
    limit = math.floor(target_macs * whole if target_macs <= 1 else target_macs)
    choices = by_macs(layers, whole - limit)
    if choices is None:
        least = whole - sum(most_saved(options) for options in layers)
        raise ValueError(
            f"target_macs can't be met: got {target_macs:g}, and with every layer at rank 1 that "
            f"can be factorized the model has {least:,} of {whole:,} MACs, {least / whole:.3f}"
        )
    return choices


def _macs(calls: Sequence[Call]) -> int:
    return sum(call_macs(call) or 0 for call in calls)


def _report(
    flow: Walk,
    parts: Sequence[Factored],
    left: list[Skipped],
    parameters: tuple[int, int],
    weighted: bool,
) -> FactorizationReport:
    order = {call.name: place for place, call in enumerate(reversed(flow.calls))}
    whole = _macs(flow.calls)
    saved = sum(part.unit.macs - part.option.macs for part in parts)
    uncounted = sorted({call.name for call in flow.calls if call_macs(call) is None})
    notes = []
    if not parts:
        notes.append("no layer was replaced: the model is as it was")
    if uncounted:
        names = ", ".join(uncounted)
        notes.append(f"MACs are without those of layers that are not understood: {names}")
    return FactorizationReport(
        tuple(_line(part) for part in parts),
        tuple(sorted(left, key=lambda skipped: -order[skipped.name])),
        (whole, whole - saved),
        parameters,
        weighted,
        tuple(notes),
    )


def _line(part: Factored) -> FactoredLayer:
    unit, option = part.unit, part.option
    bias = unit.kernel.shape[-1] if unit.layer.use_bias else 0
    return FactoredLayer(
        unit.name,
        type(unit.layer).__name__,
        option.method,
        option.ranks,
        (unit.macs, option.macs),
        (unit.kernel.size + bias, part.parameters),
        option.error,
    )
