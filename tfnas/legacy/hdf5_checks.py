"""What is checked of an HDF5 file and of a model's configuration before a library reads them.

HDF5 may keep data in other files: in external storage, behind external links, in virtual
datasets. A library that reads weights follows them, so that a model could carry any file of the
machine away. Keras writes none of these.
"""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

from tfnas.runtime.foreign_files import check_archive, check_expansion

_MOST_LEVELS = 200  # of groups and of configurations; a model in a model takes about five
# Settings of stock layers that are a dimension of one of their weights.
_SIZES = ("units", "filters", "input_dim", "output_dim")
# Weights may be stored packed or split in gates; below this many, a layer is small anyway.
_PACKED, _SMALL = 8, 1024


def check_hdf5(file: str | os.PathLike[str] | IO[bytes], size: int) -> int:
    """Checks that an HDF5 file holds all of its data itself, and that it fits into memory.

    Args:
        file: The file, as a path or open for reading.
        size: Its size in bytes.

    Returns:
        The largest dimension of a dataset; 0 where there is none.

    Raises:
        ValueError: It refers to other files, its datasets are larger than it can hold, or its
            groups are nested too deeply.
        OSError: It is no HDF5 file, or it is damaged.
    """
    h5py = importlib.import_module("h5py")  # a dependency of Keras, without type hints

    expanded = largest = 0
    with h5py.File(file, "r") as opened:
        for name, dataset in _datasets(opened, h5py):
            if dataset.external:
                raise ValueError(
                    f"an HDF5 file must hold its data itself, got external storage of {name!r}"
                )
            if dataset.is_virtual:
                raise ValueError(
                    f"an HDF5 file must hold its data itself, got the virtual dataset {name!r}"
                )
            expanded += dataset.size * dataset.dtype.itemsize if dataset.shape is not None else 0
            largest = max(largest, *(dataset.shape or ()), 0)
    check_expansion(expanded, size, "the data of an HDF5 file")
    return int(largest)


def _datasets(opened: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Yields each dataset with its name, without following a link to another file."""
    pending, seen = [("", opened, 0)], {opened}
    while pending:
        place, group, level = pending.pop()
        if level > _MOST_LEVELS:
            raise ValueError(f"an HDF5 file must have at most {_MOST_LEVELS} levels of groups")
        for key in group:
            name = f"{place}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.SoftLink):  # what it leads to is in the file, and is checked
                continue
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"an HDF5 file must hold its data itself, got the external link {name!r}"
                )
            item = group[key]
            if item in seen:
                continue
            seen.add(item)
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group):
                pending.append((name, item, level + 1))


def parsed_config(text: str | bytes) -> Any:
    """Returns a model's configuration from its JSON text.

    Args:
        text: The text.

    Raises:
        ValueError: It is no JSON, or nested too deeply to be built.
    """
    try:
        config = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    pending = [(config, 0)]
    while pending:
        value, level = pending.pop()
        if level > _MOST_LEVELS:
            raise ValueError(_TOO_DEEP)
        if isinstance(value, dict | list):
            inside = value.values() if isinstance(value, dict) else value
            pending += ((each, level + 1) for each in inside)
    return config


_TOO_DEEP = f"a configuration must have at most {_MOST_LEVELS} levels, got more"


def config_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every serialized object in the configuration of a model.

    Args:
        config: The configuration.
    """
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
            if "class_name" in value or "module" in value:
                yield value
        elif isinstance(value, list):
            pending += value


def check_layer_sizes(config: Any, largest: int) -> None:
    """Checks that no layer would get weights that the file can't hold, before any is allocated.

    Args:
        config: The model's configuration.
        largest: The largest dimension of a weight in the file.

    Raises:
        ValueError: A stock layer is larger than every weight.
    """
    entries = list(config_objects(config))
    if not largest and not any(_gives_a_shape(entry) for entry in entries):
        return  # a model that was never built: nothing is allocated
    limit = max(_SMALL, _PACKED * largest)
    for entry in entries:
        settings = entry.get("config")
        if not isinstance(settings, Mapping) or not _is_stock(entry):
            continue
        for name in _SIZES:
            value = settings.get(name)
            if isinstance(value, int) and value > limit:
                raise ValueError(
                    f"layer {settings.get('name')!r} ({entry.get('class_name')}) must have "
                    f"weights in the file, whose largest dimension is {largest:,}, got "
                    f"{name}={value:,}"[:300]
                )


def _gives_a_shape(entry: Mapping[str, Any]) -> bool:
    return entry.get("class_name") == "InputLayer" or bool(entry.get("build_config"))


def _is_stock(entry: Mapping[str, Any]) -> bool:
    """Whether an object is of Keras itself: Keras 2 wrote no module."""
    return str(entry.get("module") or "keras").split(".")[0] in ("keras", "tf_keras")


def check_keras_archive(path: str | os.PathLike[str]) -> None:
    """Checks a `.keras` file: the archive, the HDF5 files and the configuration in it.

    Args:
        path: The file.

    Raises:
        ValueError: It expands beyond measure, its names or data lead out of it, or the
            configuration is nested too deeply or larger than the weights.
        OSError: A part is damaged.
        zipfile.BadZipFile: It is no archive.
    """
    import io

    check_archive(path)
    largest = 0
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for name in names:
            if name.endswith(".h5"):
                content = archive.read(name)
                largest = max(largest, check_hdf5(io.BytesIO(content), len(content)))
        if "config.json" in names:
            check_layer_sizes(parsed_config(archive.read("config.json")), largest)
