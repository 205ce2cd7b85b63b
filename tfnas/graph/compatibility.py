"""Checks the order of compression techniques on the model itself.

The order in which no step destroys the result of another: first structured pruning and low rank,
which replace layers; then pruning of single weights; then clustering, which may keep zero as one
of the shared values; then quantization-aware training, whose ranges belong to the weights that
they were measured with. Distillation can be combined with any training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.kernel_state import kernel_compression
from tfnas.graph.layer_kernels import model_kernels
from tfnas.keras_private import all_layers, attach, attached

if TYPE_CHECKING:
    import keras

TRAINED_WITH = "changes kernels, and roundings and ranges belong to those that they came with"


def check_float(
    model: keras.Model,
    technique: str,
    why: str = "changes layers, and the ranges that were measured are of those as they are",
) -> None:
    """Raises ValueError for a quantization-aware model whose layers are to be replaced.

    Example:
        >>> import keras
        >>> check_float(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "factorize")

    Args:
        model: A Keras model.
        technique: Name of the calling function, for the message.
        why: Why it can't be applied to such a model.

    Raises:
        ValueError: The model is quantization-aware.
    """
    import keras

    for layer in all_layers(model) if isinstance(model, keras.layers.Layer) else ():
        if type(layer).__module__.startswith("tfnas.quantization."):
            raise ValueError(
                f"model must not be quantization-aware yet, got {model.name!r} with "
                f"{layer.name!r}: {technique} {why}. Pass the float model, or "
                "tfnas.strip_quantization(model), and call tfnas.quantize_aware afterwards"
            )


def check_not_quantized_by_keras(model: keras.Model) -> None:
    """Raises ValueError for a model of `keras.Model.quantize`.

    Example:
        >>> import keras
        >>> check_not_quantized_by_keras(keras.Sequential([keras.layers.Dense(3)]))

    Args:
        model: A Keras model.

    Raises:
        ValueError: Keras quantized a layer; the message names it.
    """
    for layer in all_layers(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode:
            raise ValueError(
                f"model must have float kernels, got {layer.name!r} of {mode} kernels by Keras' "
                "quantize(), which have no form in a .tflite file: pass the model as it was before"
            )


def check_no_lora(model: keras.Model) -> None:
    """Raises ValueError for LoRA weights: a kernel that is a sum can't be rounded as one.

    Example:
        >>> import keras
        >>> check_no_lora(keras.Sequential([keras.layers.Dense(3)]))

    Args:
        model: A Keras model.

    Raises:
        ValueError: A layer has LoRA weights; the message names it.
    """
    for layer in all_layers(model):
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"model must have no LoRA weights, got those of {layer.name!r}: build the model "
                "without LoRA, and assign the sum, layer.kernel, to its kernel"
            )


def check_uncompressed(name: str, kernel: np.ndarray, technique: str, exclude: str = "") -> None:
    """Raises ValueError for a kernel whose zeros or shared values would be lost.

    Example:
        >>> check_uncompressed("d", np.random.default_rng(0).normal(size=(8, 8)), "factorize")

    Args:
        name: The layer's name.
        kernel: Its weights, output channels last.
        technique: Name of the calling function, for the message.
        exclude: End of the message: another way out.

    Raises:
        ValueError: The kernel is pruned or clustered.
    """
    state = kernel_compression(kernel)
    if not state:
        return
    values = f"{len(np.unique(kernel))} shared values"
    found = values if state == "clusters" else f"{(kernel == 0).mean():.0%} zeros"
    raise ValueError(
        f"model must not be pruned or clustered before {technique}, got {found} in the kernel of "
        f"{name!r}, which would be lost: {technique} comes first{exclude}"
    )


def check_unshared(name: str, kernel: np.ndarray) -> None:
    """Raises ValueError for a clustered kernel that is to be pruned.

    Example:
        >>> check_unshared("d", np.random.default_rng(0).normal(size=(8, 8)))

    Args:
        name: The kernel's name.
        kernel: Its weights, output channels last.

    Raises:
        ValueError: The kernel is clustered.
    """
    if kernel_compression(kernel) == "clusters":
        raise ValueError(
            f"model must be pruned before it is clustered, got {len(np.unique(kernel))} shared "
            f"values in {name!r}: equal weights have equal magnitudes, so the choice among them "
            "would be arbitrary. tfnas.cluster keeps the zeros of a pruned model"
        )


def register_callback(
    model: keras.Model, technique: str, callback: keras.callbacks.Callback
) -> dict[str, Any]:
    """Registers a callback at the beginning of a `fit`; returns those registered before it.

    Args:
        model: The model that is trained.
        technique: Name of the callback's technique.
        callback: The callback.

    Returns:
        Technique -> callback; empty in a custom training loop.
    """
    history = getattr(model, "history", None)  # Keras creates one in each `fit`
    if history is None:
        return {}
    if attached(history, "callbacks") is None:
        attach(history, "callbacks", {})
    registered: dict[str, Any] = attached(history, "callbacks")
    before = {name: other for name, other in registered.items() if other is not callback}
    registered[technique] = callback
    return before


def unregister_callback(model: keras.Model, technique: str) -> None:
    """Removes a callback from the register at the end of its `fit`."""
    registered = attached(getattr(model, "history", None), "callbacks") or {}
    registered.pop(technique, None)


def check_disjoint(pruned: Iterable[Any], clustered: Iterable[Any], got: str) -> None:
    """Raises ValueError if one training prunes and clusters the same kernel.

    Args:
        pruned: The kernels of a PruningCallback.
        clustered: The kernels of a ClusteringCallback.
        got: Description of the two callbacks, for the message.

    Raises:
        ValueError: A kernel is in both.
    """
    pruned_ids = {id(kernel.variable) for kernel in pruned}
    shared = next((kernel for kernel in clustered if id(kernel.variable) in pruned_ids), None)
    if shared is not None:
        raise ValueError(
            f"callbacks must not prune and cluster the same kernels, got {got} for "
            f"{shared.name!r}: weights that share a value can't become zero one by one. Prune "
            "first, in a fit of its own or with tfnas.prune, then cluster: the zeros stay"
        )


def carry_zeros(model: keras.Model, changed: keras.Model) -> None:
    """Copies the pruning constraints of a model to another one built from its layers.

    Kernels are matched by their values, since a rebuilt model may order and name them differently.

    Args:
        model: The original.
        changed: A model with the same weights; changed in place.
    """
    found = [(k, in_chain(k.variable.constraint, _keeps_zeros)) for k in model_kernels(model)[0]]
    masked = [(kernel.numpy(), mask) for kernel, mask in found if mask is not None]
    for kernel in model_kernels(changed)[0] if masked else ():
        weights = kernel.numpy()
        mask = next((m for values, m in masked if np.array_equal(values, weights)), None)
        if mask is not None:
            mask.carry(changed, kernel)


def in_chain(constraint: Any, predicate: Callable[[Any], bool]) -> Any:
    """Returns the first constraint in a chain that fulfills a predicate, or None.

    Args:
        constraint: A constraint, whose `inner` is the next one, or None.
        predicate: Constraint -> whether to return it.
    """
    while constraint is not None and not predicate(constraint):
        constraint = getattr(constraint, "inner", None)
    return constraint


def _keeps_zeros(constraint: Any) -> bool:
    """Whether it is the constraint of :mod:`tfnas.pruning.mask_constraint`."""
    return hasattr(constraint, "carry")
