"""Zeros that stay, whatever the optimizer does.

Keras optimizers apply a variable's `constraint` right after each update, inside the
compiled training step: also between the steps of one execution (`steps_per_execution`),
where a callback's hook comes too late, and whatever momentum or weight decay has moved. So
the mask is a variable that a :class:`ZeroMask` holds and applies there.

The constraint hangs on the variable, not on the layer's configuration: a saved model is a
plain Keras model that loads without tfnas. After loading, :func:`keep_zeros` is the one line
that keeps its zeros in further training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select


class ZeroMask(keras.constraints.Constraint):
    """Sets masked weights to zero, after the constraint that the variable had before.

    Args:
        mask: Boolean Keras variable of the kernel's shape: True stays.
        inner: The variable's own constraint, or None.
    """

    def __init__(self, mask: keras.Variable, inner: Any = None) -> None:
        self.mask = mask
        self.inner = inner

    def __call__(self, w: Any) -> Any:
        """Returns the weights with exact zeros where the mask is False."""
        value = keras.ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        # A selection, not a product: NaN and -0.0 become 0.0 as well.
        return keras.ops.where(self.mask, value, keras.ops.zeros_like(value))

    def carry(self, model: Any, kernel: Any) -> None:
        """Hangs a mask like this one on the same kernel of a model made of this one's layers.

        Args:
            model: The other model.
            kernel: Its kernel.
        """
        mask = np.asarray(keras.ops.convert_to_numpy(self.mask))
        if not mask.all():
            attach(model, [kernel])
            assign_masks([kernel], [mask])


def keep_zeros(model: Any, layers: Any = None, exclude: Any = ()) -> int:
    """Makes the zeros in a model's kernels stay zero in further training.

    For a pruned model that was loaded from disk, or pruned by other means. Call it after
    loading and before `fit`; the zeros then hold for as long as this object lives.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> _ = model.layers[0].kernel.assign(np.eye(4, 3))
        >>> tfnas.keep_zeros(model)
        9

    Args:
        model: A built Keras 3 model; changed in place.
        layers: Where zeros are kept; None: in every layer with a kernel. As for
            :func:`tfnas.prune`.
        exclude: Where they are not.

    Returns:
        The number of weights that stay zero. A kernel that is all zeros is taken for one
        that has yet to be trained, and is left free.

    Raises:
        ValueError: The model is not built, or no kernel holds a zero.
    """
    kernels = select(find_kernels(model)[0], layers, exclude)[0]
    found = [(kernel, kernel.numpy() != 0) for kernel in kernels]
    sparse = [(kernel, mask) for kernel, mask in found if mask.any() and not mask.all()]
    if not sparse:
        raise ValueError(f"model must hold zeros in its kernels, got none in {model.name!r}")
    masks = [mask for _, mask in sparse]
    attach(model, [kernel for kernel, _ in sparse])
    assign_masks([kernel for kernel, _ in sparse], masks)
    return sum(int(np.count_nonzero(~mask)) for mask in masks)


def attach(model: Any, kernels: Sequence[PrunableKernel]) -> None:
    """Hangs a mask that lets everything through on each kernel that has none yet.

    A training function that was traced before would not know of it: it is made anew.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on the TensorFlow backend to keep zeros in training, got "
            f"{keras.backend.backend()!r}"
        )
    new = [k for k in kernels if not isinstance(k.variable.constraint, ZeroMask)]
    if not new:
        return
    strategy = getattr(model, "distribute_strategy", None)
    for kernel in new:
        ones = np.ones(kernel.shape, bool)
        if strategy is None:
            mask = _mask_variable(ones)
        else:
            with strategy.scope():  # a mirrored variable needs a mirrored mask
                mask = _mask_variable(ones)
        kernel.variable.constraint = ZeroMask(mask, kernel.variable.constraint)
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def carry_masks(
    model: Any, kernels: Sequence[PrunableKernel], twins: Sequence[PrunableKernel]
) -> None:
    """Hangs the masks of a model's kernels on those of its copy.

    Args:
        model: The copy.
        kernels: The original's kernels.
        twins: The copy's, in the same order.
    """
    for kernel, twin in zip(kernels, twins, strict=True):
        if isinstance(kernel.variable.constraint, ZeroMask):
            attach(model, [twin])
            twin.variable.constraint.mask.assign(kernel.variable.constraint.mask)


def assign_masks(kernels: Sequence[PrunableKernel], masks: Sequence[np.ndarray]) -> None:
    """Sets the masks of kernels that were attached, and zeroes what they mask.

    Raises:
        ValueError: A kernel was clustered since.
    """
    for kernel, mask in zip(kernels, masks, strict=True):
        zeros = kernel.variable.constraint
        if not isinstance(zeros, ZeroMask):  # tied behind it meanwhile
            raise ValueError(
                f"masks must not change once the weights of {kernel.name!r} share values, got a "
                f"{type(zeros).__name__} on it: prune first, then cluster, and the zeros stay"
            )
        zeros.mask.assign(mask)
    apply_masks(kernels)


def apply_masks(kernels: Sequence[PrunableKernel]) -> None:
    """Zeroes what the masks mask, now."""
    for kernel in kernels:
        kernel.variable.assign(kernel.variable.constraint(kernel.variable))


def detach(kernels: Sequence[PrunableKernel]) -> None:
    """Gives the kernels back the constraints that they had before."""
    for kernel in kernels:
        if isinstance(kernel.variable.constraint, ZeroMask):
            kernel.variable.constraint = kernel.variable.constraint.inner


def _mask_variable(mask: np.ndarray) -> keras.Variable:
    return keras.Variable(mask, dtype="bool", trainable=False, name="pruning_mask")
