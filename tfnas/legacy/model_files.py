"""Loads saved models, including those of Keras 2, without running code from the file.

An .h5 file is read by the library that wrote it: Keras 3 loads many files of Keras 2, but
computes something else for some of them (see `activations`). The model's config in the file is
checked first. It may name stock layers and a list of TensorFlow functions, nothing else: a Lambda
layer holds marshalled code, a `module` entry can import any module, and an operator layer can
call any function of TensorFlow, such as `tf.io.write_file`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.legacy import activations
from tfnas.legacy.environment import tf_keras
from tfnas.legacy.hdf5_checks import (
    check_hdf5,
    check_keras_archive,
    check_layer_sizes,
    config_objects,
    parsed_config,
)
from tfnas.legacy.operations import SYMBOLS
from tfnas.legacy.rebuild import from_tf_keras
from tfnas.runtime.foreign_files import read_regular

if TYPE_CHECKING:
    import keras

SUFFIXES = (".h5", ".hdf5")
STRUCTURE = frozenset(
    {
        "Functional",
        "Model",
        "Sequential",
        "SlicingOpLambda",
        "TFOpLambda",
        "TensorShape",
        "DTypePolicy",
        "DTypePolicyMap",
        "Policy",
        "__tuple__",
        "__numpy__",
        "__tensor__",
        "__keras_tensor__",
        "__slice__",
    }
)
NAMESPACES = ("layers", "initializers", "regularizers", "constraints")


Objects = Mapping[str, Any] | None


def load_model(
    path: str | pathlib.Path,
    custom_objects: Objects = None,
    safe_mode: bool = True,
    compiled: bool = False,
) -> keras.Model:
    """Loads a saved `.keras` or `.h5` file as a Keras 3 model; runs no code from the file.

    Example:
        >>> import keras, tempfile, tfnas
        >>> path = f"{tempfile.mkdtemp()}/model.keras"
        >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
        >>> tfnas.legacy.load_model(path).output_shape
        (None, 2)

    Args:
        path: The file.
        custom_objects: Name -> class or function of the user's own.
        safe_mode: Whether to refuse code in the file, as that of a Lambda layer; False runs it.
        compiled: Whether a `.keras` model is compiled as it was when it was saved, where its loss
            and metrics can be read.

    Returns:
        The model; not compiled, unless `compiled`.

    Raises:
        ValueError: There is no such file, or it can't be loaded.
        ImportError: A file of Keras 2 needs tf_keras, which is not installed.
    """
    path = pathlib.Path(path)
    if check_model_file(path):
        return load_h5(path, custom_objects, safe_mode)
    import keras

    activations.for_keras()
    if compiled:
        with contextlib.suppress(Exception):  # a loss of the user's own that is not known here
            return keras.saving.load_model(path, custom_objects, safe_mode=safe_mode)
    try:
        check_keras_archive(path)
        return keras.saving.load_model(path, custom_objects, compile=False, safe_mode=safe_mode)
    except Exception as error:  # Keras raises errors of many types for a broken file
        raise _broken(path, error) from error


def check_model_file(path: pathlib.Path) -> bool:
    """Checks that a file is one of Keras, as far as its first bytes tell; imports no Keras.

    Args:
        path: The file.

    Returns:
        Whether it is an HDF5 file.

    Raises:
        ValueError: There is no such file, or it is of another kind.
    """
    if (path / "saved_model.pb").is_file():
        names = _saved_model_signatures(path)
        raise ValueError(
            f"model must be a .keras or .h5 file, got {str(path)!r}, a SavedModel of the "
            f"signatures {', '.join(map(repr, names)) or 'none'}: keras.layers.TFSMLayer(path, "
            "call_endpoint=NAME) makes a layer of one, and tfnas.to_tflite converts a model of it"
        )
    if not path.is_file():
        raise ValueError(
            f"model must be a .keras or .h5 file, got {str(path)!r}, which "
            f"{'is no file' if path.exists() else 'does not exist'}"
        )
    with path.open("rb") as file:
        hdf5 = file.read(4) == b"\x89HDF"  # TensorFlow up to 2.11 wrote HDF5 under any file name
    if path.suffix.lower() in SUFFIXES or hdf5:
        return True
    if path.suffix.lower() == ".tflite":
        raise ValueError(
            f"model must be a .keras or .h5 file, got {str(path)!r}: pass the Keras model that "
            "it was converted from"
        )
    if path.suffix.lower() != ".keras":
        raise ValueError(f"model must be a .keras or .h5 file, got {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise _broken(
            path, ValueError("it is not a .keras archive: damaged, or saved in another format")
        )
    return False


def _saved_model_signatures(folder: pathlib.Path) -> list[str]:
    """Names of the functions of a SavedModel; no code of it is run."""
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        stored = saved_model_pb2.SavedModel.FromString(read_regular(folder / "saved_model.pb"))
    except Exception as error:  # the parser raises errors of its own
        raise _broken(folder, error) from error
    names = {name for graph in stored.meta_graphs for name in graph.signature_def}
    return sorted(name for name in names if not name.startswith("__saved_model"))


def load_h5(
    path: str | pathlib.Path, custom_objects: Objects = None, safe_mode: bool = True
) -> keras.Model:
    """Loads an .h5 file of Keras 2 or 3 as a Keras 3 model; runs no code from the file.

    Example:
        >>> import keras, tempfile, tfnas
        >>> path = f"{tempfile.mkdtemp()}/model.h5"
        >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
        >>> tfnas.legacy.load_h5(path).output_shape
        (None, 2)

    Args:
        path: The file; it must hold a model, not only weights.
        custom_objects: Name -> class or function of the user's own.
        safe_mode: Whether to refuse code in the file, as that of a Lambda layer; False runs it.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such file, it holds weights only, it names something that is not a
            stock layer or a known function (such as a Lambda layer), or a layer has no
            counterpart in Keras 3.
        ImportError: A file of Keras 2 needs tf_keras, which is not installed.
    """
    path = pathlib.Path(path)
    config, version = _read(path)
    library = _library(version)
    known = {*(custom_objects or ()), *(() if safe_mode else ("Lambda", "__lambda__"))}
    for entry in config_objects(config):
        if str(entry.get("class_name")) not in known:
            _check_object(entry, library.__name__, path)
    try:
        model = library.models.load_model(
            str(path), custom_objects=custom_objects, compile=False, safe_mode=safe_mode
        )
    except Exception as error:  # both libraries raise errors of many types for a broken file
        raise _broken(path, error) from error
    return model if library.__name__ == "keras" else from_tf_keras(model)


def _library(version: str) -> Any:
    """The library that wrote the file."""
    import keras

    return keras if version.startswith("3") else tf_keras()


def _read(path: pathlib.Path) -> tuple[Any, str]:
    """The model's config in a file, and the version of Keras that wrote it."""
    h5py = importlib.import_module("h5py")  # a dependency of Keras, without type hints

    if not path.is_file():
        raise ValueError(f"model must be an .h5 file, got {str(path)!r}, which does not exist")
    try:
        largest = check_hdf5(path, path.stat().st_size)
        with h5py.File(path, "r") as file:
            config, version = (file.attrs.get(key) for key in ("model_config", "keras_version"))
    except Exception as error:  # h5py raises errors of many types for a broken file
        raise _broken(path, error) from error
    if config is None:
        raise ValueError(
            f"model {str(path)!r} must hold an entire model, got weights only: build the model "
            "and call its load_weights"
        )
    try:
        parsed = parsed_config(_text(config))
        check_layer_sizes(parsed, largest)
        return parsed, _text(version or "2")
    except ValueError as error:
        raise _broken(path, error) from error


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _check_object(entry: dict[str, Any], library: str, path: pathlib.Path) -> None:
    kind, module = str(entry.get("class_name")), str(entry.get("module") or library)
    config = entry.get("config")
    settings = config if isinstance(config, dict) else {}
    name = settings.get("name", entry.get("name", kind))
    if kind == "Lambda":
        raise _error(path, name, kind, f"it holds Python code, which is not run{_UNSAFE}")
    if kind not in _stock(library):
        raise _error(path, name, kind, f"it is not a stock class of {library}{_CUSTOM}")
    if module.split(".")[0] not in ("keras", "tf_keras"):
        raise _error(path, name, kind, f"it imports the module {module!r}")
    if isinstance(settings.get("vocabulary"), str):
        raise _error(path, name, kind, f"it reads the file {settings['vocabulary']!r}")
    if kind.endswith("OpLambda") and settings.get("function") not in SYMBOLS:
        function = settings.get("function")
        raise _error(path, name, kind, f"it calls tf.{function}, which tfnas doesn't know")


@functools.cache
def _stock(library: str) -> frozenset[str]:
    module = tf_keras() if library == "tf_keras" else importlib.import_module("keras")
    namespaces = [getattr(module, name) for name in NAMESPACES]
    names = {name for namespace in namespaces for name in dir(namespace)}
    return STRUCTURE.union(
        name for name in names if any(isinstance(getattr(n, name, None), type) for n in namespaces)
    )


def _error(path: pathlib.Path, name: str, kind: str, cause: str) -> ValueError:
    return ValueError(f"model {str(path)!r} can't be loaded: layer {name!r} ({kind}): {cause}")


_CUSTOM = (
    ". Pass the classes and functions of your own as custom_objects= (--import=MODULE for commands)"
)
_UNKNOWN_OBJECT = re.compile(r"Could not locate (class|function) '(\w+)'")
_MODULE = re.compile(r"'module': '([\w.]+)'")
_UNSAFE = ". If you trust the file, pass safe_mode=False (--nosafe_mode for commands)"


def _broken(path: pathlib.Path, error: Exception) -> ValueError:
    # Keras puts the cause behind the configurations of all models around the layer.
    cause = " ".join(str(error).split()).split("Exception encountered: ")[-1]
    if unknown := _UNKNOWN_OBJECT.search(cause):
        kind, name = unknown.groups()
        found = _MODULE.search(cause, unknown.end())
        own = found is not None and found.group(1).split(".")[0] not in ("keras", "builtins")
        module = found.group(1) if found is not None and own else "MODULE"
        return ValueError(
            f"model {str(path)!r} can't be loaded: it holds the {kind} {name!r} of your own. Pass "
            f"custom_objects={{{name!r}: {name}}} (--import={module} for commands), or decorate it "
            "with @keras.saving.register_keras_serializable()"
        )
    way_out = _UNSAFE if "safe_mode" in cause else ""
    return ValueError(f"model {str(path)!r} can't be loaded: {cause[:300]}{way_out}")
