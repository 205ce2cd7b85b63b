"""Runs one file in TFLite Micro in a process of its own: `python interpreter_process.py FOLDER`.

TFLite Micro aborts the process on some files, such as those with scales that its fixed-point
multipliers can't represent, and must not abort the caller. The folder has `model.tflite`,
`call.json` (size of the arena in bytes, examples per invocation, whether a state is reset) and, to
run the file, `inputs.npz` with one array per input, examples first. The result is written to
`outputs.npz`; TFLite Micro's messages and allocations go to standard error. Nothing of tfnas is
imported, to start quickly.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
from typing import Any

import numpy as np


def main(folder: pathlib.Path) -> None:
    """Creates the interpreter, and runs it on the inputs if there are any.

    Args:
        folder: Holds the call as `call.json`, the file as `model.tflite`, and the inputs, if the
            file is to be run, as `inputs.npz`.
    """
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
        if start and call["reset"]:
            interpreter.reset()
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
