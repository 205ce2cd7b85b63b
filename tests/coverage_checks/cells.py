"""A cell of docs/coverage.md: what came of one call with one model, checked on what came out.

A check is a function of a :class:`Subject` that returns what it found, or raises. Its docstring
says what it checks, and stands in the page. :func:`run_cell` turns it into a mark:

- right: the check passed;
- refused: tfnas raised an error that names a layer of the model, or an operator of its file;
- absent: there is nothing of this kind in the model;
- wrong: what came out is not what it should be, or a refusal that names nothing;
- silent: the call did nothing and returned as if it had;
- crashed: any other error, or the end of the process.
"""

import dataclasses
import pathlib
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from model_kinds import KINDS, answers, trained

import tfnas
from tfnas.graph.preprocessing import preprocessed
from tfnas.keras_private import all_layers

RIGHT, REFUSED, ABSENT = "right", "refused", "absent"
WRONG, SILENT, CRASHED = "wrong", "silent", "crashed"
PACKAGE = pathlib.Path(tfnas.__file__).parent
OPERATOR = re.compile(r"\b[A-Z][A-Z0-9]+(_[A-Z0-9]+)*\b")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that calls are tried on.

    Args:
        name: Its row in the page.
        model: The model.
        x: Inputs, (examples, ...), as the model takes them.
        y: Targets, (examples, ...); None for a model that no check trains.
        loss: Its loss.
    """

    name: str
    model: keras.Model
    x: Any
    y: Any = None
    loss: Any = None

    @property
    def halves(self) -> bool:
        """Whether layers compute in 16 bits."""
        kinds = {layer.compute_dtype for layer in all_layers(self.model)}
        return bool(kinds & {"float16", "bfloat16"})


Check = Callable[[Subject], str]


class Wrong(AssertionError):
    """What came out is not what it should be."""


class Silent(AssertionError):
    """The call did nothing and returned as if it had."""


class NothingToDo(Exception):
    """The model has nothing of what the check looks at."""


def subject_of_kind(name: str) -> Subject:
    """Returns a kind of model after a moment of training."""
    model, x, y = trained(name)
    return Subject(name, model, x, y, KINDS[name].loss)


def require(condition: Any, message: str) -> None:
    """Raises :class:`Wrong` unless a condition holds; unlike `assert` in optimized Python too."""
    if not condition:
        raise Wrong(message)


def run_cell(check: Check, subject: Subject) -> tuple[str, str]:
    """Runs a check.

    Args:
        check: The check.
        subject: What it is tried on.

    Returns:
        The mark, and what was found or the reason.
    """
    try:
        return RIGHT, check(subject)
    except NothingToDo as error:
        return ABSENT, one_line(error)
    except Wrong as error:
        return WRONG, one_line(error)
    except Silent as error:
        return SILENT, one_line(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = one_line(error)
        if not is_refusal(error):
            return CRASHED, f"{type(error).__name__} in {pathlib.Path(place.filename).name}: {text}"
        if not names_a_layer(str(error), subject.model):
            return WRONG, f"the refusal names no layer: {text}"
        return REFUSED, text


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one that tfnas raises on purpose."""
    place = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return isinstance(error, ValueError | tfnas.ConversionError) and place.is_relative_to(PACKAGE)


def names_a_layer(text: str, model: keras.Model) -> bool:
    """Whether a message names a layer or operation of a model, a class, or a file's operator."""
    layers = [model, *all_layers(model), *getattr(model, "operations", ())]
    names = {layer.name for layer in layers} | {type(layer).__name__ for layer in layers}
    return any(name in text for name in names) or bool(OPERATOR.search(text))


def one_line(error: BaseException, length: int = 300) -> str:
    """Returns an error's message in one short line, without the folders of a machine."""
    text = re.sub(r"\x1b\[[\d;]*m", "", " ".join(str(error).split())) or type(error).__name__
    text = re.sub(r"(?<![\w.])(?:/[\w.\-+]+)+/", "", text)
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def kernels(model: keras.Model) -> list[np.ndarray]:
    """Returns the kernels and tables of a model, frozen ones too, as arrays."""
    return [
        np.asarray(ops.convert_to_numpy(variable))
        for variable in model.weights
        if variable.name == "embeddings" or variable.name.endswith("kernel")
    ]


def file_inputs(model: keras.Model, x: Any) -> Any:
    """Returns inputs as the file of a model takes them: behind its preprocessing."""
    front, _ = tfnas.split_preprocessing(tfnas.as_functional(model, x))
    if front is None:
        return x
    return preprocessed(front, x)


def largest_difference(found: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> float:
    """Returns the largest difference of outputs of the same shapes, all of them finite."""
    pairs = list(zip(found, expected, strict=True))
    for a, b in pairs:
        require(a.shape == b.shape, f"outputs of shape {a.shape} for {b.shape}")
        require(np.isfinite(a).all() or not np.isfinite(b).all(), "outputs that are not finite")
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def relative_error(found: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> float:
    """Returns the root mean square difference of the worst output, as a part of its deviation."""
    found, expected = list(found), list(expected)
    largest_difference(found, expected)
    pairs = zip(found, expected, strict=True)
    return max(float(np.sqrt(np.square(a - b).mean()) / (b.std() + 1e-6)) for a, b in pairs)


def outputs_of(subject: Subject) -> list[np.ndarray]:
    """Returns what a subject's model computes, as arrays in float64."""
    return answers(subject.model, subject.x)
