"""Runs one file in TFLite Micro, in a process of its own: `python micro_worker.py FOLDER`.

TFLite Micro aborts on some files, such as those whose steps no fixed-point number can hold, and
that must not end the caller. The folder has `model.tflite`, `call.json` (bytes of the arena,
examples an invocation) and, to compute something, `inputs.npz`: an array for each of the
file's inputs, examples first. `outputs.npz` is left there; what TFLite Micro says, and where
its arena goes, is on the standard error. Imports nothing of tfnas, which takes longer.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
from typing import Any

import numpy as np


def main(folder: pathlib.Path) -> None:
    """Makes the interpreter, and runs it where there are inputs."""
    runtime = importlib.import_module("tflite_micro").runtime
    call = json.loads((folder / "call.json").read_text())
    content = (folder / "model.tflite").read_bytes()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=call["arena"])
    if not (folder / "inputs.npz").exists():
        interpreter.print_allocations()
        return
    with np.load(folder / "inputs.npz") as file:
        columns = [file[str(place)] for place in range(len(file.files))]
    parts: list[list[np.ndarray]] = [[] for _ in range(call["outputs"])]
    for start in range(0, len(columns[0]), call["batch"]):
        for place, column in enumerate(columns):
            block = column[start : start + call["batch"]]
            used = len(block)
            filled = np.concatenate([block, np.repeat(block[-1:], call["batch"] - used, 0)])
            interpreter.set_input(filled, place)
        interpreter.invoke()
        for place, part in enumerate(parts):
            part.append(interpreter.get_output(place)[:used])
    outputs: dict[str, Any] = {str(place): np.concatenate(part) for place, part in enumerate(parts)}
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except (RuntimeError, ValueError) as error:
        sys.exit(f"{error}")
