"""Checks of a loss and of a user's own `fit`, before anything is trained by them."""

from __future__ import annotations

from typing import Any

from tfnas.runtime.argument_rules import check_takes, near


def check_loss(loss: Any) -> None:
    """Checks that a loss is in a form that `Model.compile` takes, and that its names are known.

    Example:
        >>> check_loss({"a": "mse", "b": None})
        >>> check_loss("mean_square_error")
        Traceback (most recent call last):
        ValueError: loss must be a loss of keras.losses, its name, or a function of (targets, \
outputs), got 'mean_square_error'; did you mean 'mean_squared_error'?

    Args:
        loss: A Keras loss, its name, a function, None, or lists and dictionaries of these.

    Raises:
        ValueError: A name is unknown, or it is something else.
    """
    import keras

    if isinstance(loss, dict | list | tuple):
        for each in loss.values() if isinstance(loss, dict) else loss:
            check_loss(each)
        return
    if loss is None or (callable(loss) and not isinstance(loss, type)):
        return
    hint = ""
    if isinstance(loss, str):
        try:
            if keras.losses.get(loss) is not None:
                return
        except (ValueError, TypeError):
            pass
        hint = near(loss, [name for name in dir(keras.losses) if not name.startswith("_")])
    elif isinstance(loss, type):
        hint = f": {loss.__name__}() is a loss"
    raise ValueError(
        "loss must be a loss of keras.losses, its name, or a function of (targets, outputs), got "
        f"{loss!r}{hint}"
    )


def check_fit(fit: Any) -> None:
    """Checks that a user's training can be called as `fit(model, epochs, callbacks)`.

    Example:
        >>> check_fit(lambda model, epochs, callbacks: None)
        >>> check_fit(lambda model: None)
        Traceback (most recent call last):
        ValueError: fit must take (model, epochs, callbacks), got <lambda>(model): too many \
positional arguments

    Args:
        fit: The function; None: there is none.

    Raises:
        ValueError: It is no function, or takes other arguments.
    """
    if fit is None:
        return
    if not callable(fit):
        raise ValueError(f"fit must be a function of (model, epochs, callbacks), got {fit!r}")
    check_takes("fit", fit, ("model", "epochs", "callbacks"), ("initial_epoch",))
