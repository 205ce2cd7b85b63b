"""Rules of single arguments that many classes share."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def check_count(name: str, value: Any, minimum: int, optional: bool = False) -> None:
    """Checks that an argument is a whole number that is large enough.

    Example:
        >>> check_count("workers", 2, 1)
        >>> check_count("workers", 0, 1)
        Traceback (most recent call last):
        ValueError: workers must be a whole number >= 1, got 0

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        minimum: The smallest value allowed.
        optional: Whether None is allowed too.

    Raises:
        ValueError: It is not.
    """
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    if not is_count and not (optional and value is None):
        raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}")


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Checks that an argument is one of some words.

    Example:
        >>> check_choice("curve", "PR", ("ROC", "PR"))
        >>> check_choice("curve", "P", ("ROC", "PR"))
        Traceback (most recent call last):
        ValueError: curve must be one of ROC, PR, got 'P'; did you mean 'PR'?

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        known: The words.

    Raises:
        ValueError: It is not.
    """
    if value not in known:
        hint = near(value, known) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{hint}")


def check_takes(
    name: str, function: Callable[..., Any], arguments: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Checks that a function of the user's can be called with some arguments.

    Example:
        >>> check_takes("fit", lambda model, epochs: None, ("model", "epochs"))
        >>> check_takes("fit", lambda model: None, ("model", "epochs"))
        Traceback (most recent call last):
        ValueError: fit must take (model, epochs), got <lambda>(model): too many positional \
arguments

    Args:
        name: Name of the argument, for the message.
        function: The function.
        arguments: What it gets, in words.
        optional: Names of further arguments that it gets where it has them.

    Raises:
        ValueError: It takes other arguments.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # it is written in C, and says nothing
        return
    more = {each: 0 for each in optional if each in signature.parameters}
    try:
        signature.bind(*arguments, **more)
    except TypeError as error:
        own = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"{name} must take ({', '.join(arguments)}), got {own}{signature}: {error}"
        ) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the nearest known one, or all.

    Example:
        >>> did_you_mean("val_acc", ["loss", "val_accuracy"])
        "did you mean 'val_accuracy'?"
        >>> did_you_mean("x", ["loss"])
        'the known ones are loss'

    Args:
        name: The unknown name.
        known: The known names.
    """
    known = list(known)
    return near(name, known).removeprefix("; ") or f"the known ones are {', '.join(known)}"


def near(name: str, names: Iterable[str]) -> str:
    """Returns a question for the nearest of some names, such as "; did you mean 'age'?".

    Example:
        >>> near("agee", ["age", "city"]), near("x", ["age"])
        ("; did you mean 'age'?", '')

    Args:
        name: The name that is not among them.
        names: The names.
    """
    match = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {match[0]!r}?" if match else ""
