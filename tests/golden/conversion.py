"""Files: operators, options, constants, scales."""

import functools
import pathlib
import re
import tempfile

from golden import names, networks
from golden.digest import file_content
from golden.entries import add

EVERYWHERE = ("float32", "int8")
THOROUGH = ("depthwise", "plain")  # in all modes
AWARE = {"int8": ("residual", "two_ends", "transposed"), "int8x4": ("depthwise",)}
AWARE["int16x8"] = ("plain",)
SPECIFIED = {
    "layers of 4 bits": ("plain", {"layers": {"third": "int4", "first": "float32"}}),
    "weights by kind": (
        "plain",
        {"activations": "float32", "weight_only": True, "layers": {"Dense": "int4"}},
    ),
    "percentile": ("residual", {"ranges": "percentile", "percentile": 99.0}),
    "corrected": ("residual", {"weights": "int4", "correct": True}),
}


@functools.cache
def bytes_of(network, mode):
    """Returns a network's file in a mode, as bytes."""
    return _file(network, mode).content


def _file(network, mode, **options):
    model = networks.build(network)
    return names.to_file(model, mode, networks.inputs(model), **options)


def _converted(network, mode):
    return file_content(bytes_of(network, mode))


def _aware(network, mode):
    model = networks.build(network)
    trainable = names.quantize_aware(model, mode, networks.inputs(model))
    return file_content(names.to_file(trainable, mode).content)


def _specified(network, **fields):
    return file_content(_file(network, names.spec(**fields)).content)


def _minified(network, mode):
    return file_content(names.minified(_file(network, mode)).content)


def _sparse(network, mode):
    pruned, _ = names.prune(networks.build(network), 0.95, exclude=("last",))
    x = networks.inputs(pruned)
    file = names.to_file(pruned, mode, x, sparse=True)
    return [file_content(file.content), names.sparsity(file)]


def _c_source(network):
    with tempfile.TemporaryDirectory() as folder:
        written = names.save_c(_file(network, "int8"), pathlib.Path(folder, "net.c"))
        header = re.sub(r"\w*TFNAS\w*", "", written[1].read_text())
        return [file_content(_bytes(written[0].read_text())), len(header.split())]


def _bytes(source):
    """The bytes of a C array."""
    return bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})\b", source))


def _described(network):
    fields = {"description": "a net", "labels": tuple("abcd"), "mean": 1.0, "std": (2.0,)}
    file = names.described(_file(network, "int8"), **fields, author="me", version="3")
    return [names.description(file), file_content(file.content)]


def _micro(network, mode):
    return names.micro(_file(network, mode))


def _mixed(network, size, **options):
    model = networks.build(network)
    file, *told = names.mixed(model, size, networks.inputs(model), **options)
    return [told, file_content(file.content)]


def _error(network):
    model = networks.build(network)
    x = networks.inputs(model)
    return names.quantization_error(model, names.to_file(model, "int8", x), x)


for _network in networks.NETWORKS:
    for _mode in names.MODES:
        if _mode in EVERYWHERE or _network in THOROUGH:
            add(f"file/{_mode}/{_network}", _converted, _network, _mode)
for _mode, _networks in AWARE.items():
    for _network in _networks:
        add(f"file/aware {_mode}/{_network}", _aware, _network, _mode)
for _name, (_network, _fields) in SPECIFIED.items():
    add(f"file/specified, {_name}/{_network}", _specified, _network, **_fields)
for _mode in ("float32", "float16", "int8"):
    add(f"file/sparse {_mode}/residual", _sparse, "residual", _mode)
add("file/minified/plain", _minified, "plain", "int8")
add("file/C source/depthwise", _c_source, "depthwise")
add("file/metadata/depthwise", _described, "depthwise")
for _network in ("residual", "separable"):
    add(f"file/micro/{_network}", _micro, _network, "int8")
add("file/mixed/dense", _mixed, "dense", 0.4)
add("file/mixed, integers/dense", _mixed, "dense", 0.65, activations="int8")
add("file/error/grouped", _error, "grouped")
