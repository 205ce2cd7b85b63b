"""A keras_tuner hypermodel of the user's, named on the command line as `module:function`."""

from __future__ import annotations

import inspect
from typing import Any

import cloudpickle
import keras_tuner as kt

from tfnas.nas.search_config import check_hypermodel_name
from tfnas.runtime.argument_rules import did_you_mean
from tfnas.runtime.user_modules import user_module


def imported_hypermodel(name: str) -> kt.HyperModel | Any:
    """Imports a hypermodel from a module in the current folder, or an installed one.

    Args:
        name: "module:function" of a function that takes `hp` and returns a compiled model, or
            "module:Class" of a `keras_tuner.HyperModel` whose constructor needs no arguments.

    Raises:
        ValueError: The name has another form, there is no such module or function, or it is
            something else.
    """
    check_hypermodel_name(name)
    module_name, _, attribute = name.partition(":")
    module = user_module(module_name, "hypermodel")
    if not hasattr(module, attribute):
        known = [each for each, value in vars(module).items() if _is_hypermodel(value)]
        raise ValueError(
            f"hypermodel must be a function of module {module_name!r}, got {attribute!r}: "
            f"{did_you_mean(attribute, known) if known else 'the module has none'}"
        )
    found = getattr(module, attribute)
    if inspect.isclass(found) and issubclass(found, kt.HyperModel):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(
                f"hypermodel {name!r} must be created without arguments: {error}; name a function "
                "or an object instead"
            ) from error
    if inspect.isclass(found) or not (isinstance(found, kt.HyperModel) or callable(found)):
        raise ValueError(
            f"hypermodel must be a function or a keras_tuner.HyperModel, got {name!r}, "
            f"which is a {type(found).__name__}"
        )
    cloudpickle.register_pickle_by_value(module)  # workers need not find the module
    return found


def _is_hypermodel(value: Any) -> bool:
    if inspect.isclass(value):
        return issubclass(value, kt.HyperModel)
    return inspect.isfunction(value) or isinstance(value, kt.HyperModel)
