"""Runs one file in TFLite Micro in a process of its own: `python interpreter_process.py FOLDER`.

TFLite Micro aborts the process on some files, such as those with scales that its fixed-point
multipliers can't represent, and must not abort the caller. The folder has `model.tflite`,
`call.json` (size of the arena in bytes, examples per invocation, whether a state is reset, which
output is an input of the next invocation) and, to run the file, `inputs.npz` with one array per
input, examples first; of a state the first alone. The result is written to `outputs.npz`; TFLite
Micro's messages and allocations go to standard error. Nothing of tfnas is imported, to start
quickly.
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
    states = {int(entry): output for entry, output in call["states"].items()}
    parts: list[list[np.ndarray]] = [[] for _ in range(call["outputs"])]
    count = max(len(column) for place, column in enumerate(columns) if place not in states)
    for start in range(0, count, call["batch"]):
        if start and call["reset"]:
            interpreter.reset()
        used = min(call["batch"], count - start)
        for place, column in enumerate(columns):
            if place in states:
                interpreter.set_input(parts[states[place]][-1] if start else column, place)
                continue
            block = column[start : start + used]
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
