"""Times inferences in interleaved rounds, on this machine or on another one.

:func:`tfnas.benchmark` calls it here, and :class:`tfnas.SshDevice` sends this very file to another
machine, so that both measure in the same way. There it has no tfnas: it imports the standard
library and NumPy alone, and LiteRT where it is the main program. It runs from Python 3.7 on.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

RUNTIMES = ("ai_edge_litert", "tflite_runtime")
TIMES, REFUSAL = "tfnas-times ", "tfnas-refusal "  # begin the one line that a machine answers with


class Timer:
    """Times a file; a sample repeats the inference until it lasts `sample_ms`.

    Args:
        interpreter: An interpreter of the file, its tensors allocated.
        has_state: Whether the file keeps a state from one run to the next.
        warmup: Untimed inferences before the first sample.
        sample_ms: Least time of a sample, in ms.
    """

    def __init__(self, interpreter: Any, has_state: bool, warmup: int, sample_ms: float) -> None:
        self.interpreter, self.has_state = interpreter, has_state
        try:
            self._run_once(1)  # 0 is often padding: a mean over no words divides by 0
        except RuntimeError:
            self._run_once(0)  # an index that is valid in any vocabulary
        for _ in range(warmup):
            self.interpreter.invoke()
        seconds = sample_ms / 1000
        once = min(self.run(1), self.run(1))
        if once < 2 * seconds:  # else one inference is a sample, and a third one only takes time
            once = min(once, self.run(1))
        self.repeats = max(1, math.ceil(seconds / max(once, 1e-7)))

    def _run_once(self, index: int) -> None:
        """Sets noise as inputs, and one number where integers may be indices; runs."""
        rng = np.random.default_rng(0)
        for tensor in self.interpreter.get_input_details():
            noise = rng.uniform(0, 100, tensor["shape"]).astype(tensor["dtype"])
            if noise.dtype.kind in "iu" and not tensor["quantization"][0]:
                noise[...] = index
            self.interpreter.set_tensor(tensor["index"], noise)
        self.interpreter.invoke()

    def sample(self) -> float:
        """Returns seconds per inference, after an untimed one that warms the caches."""
        self.interpreter.invoke()
        return self.run(self.repeats) / self.repeats

    def run(self, repeats: int) -> float:
        """Returns the seconds of some inferences.

        Args:
            repeats: Their number.
        """
        if self.has_state:  # a state that grows might end in numbers that are slow to compute
            self.interpreter.reset_all_variables()
        invoke = self.interpreter.invoke
        start = time.perf_counter()
        for _ in range(repeats):
            invoke()
        return time.perf_counter() - start


def timed(
    new_timer: Callable[[int], Any], blocks: Iterable[tuple[Sequence[int], Sequence[Sequence[int]]]]
) -> np.ndarray:
    """Returns seconds per inference, (rounds, files); file 0 is the reference.

    The addresses that an interpreter's buffers happen to get shift its time by up to 2% for its
    lifetime. New interpreters in each block, created in a new order, average that out. The old ones
    are still alive then, so that the new ones get other addresses.

    Args:
        new_timer: Returns a :class:`Timer` of a file by its number.
        blocks: The numbers of all files in the order of their creation, and for each round those
            of the files beside the reference in the order of the round.
    """
    rows = []
    timers: dict[int, Any] = {}
    for created, rounds in blocks:
        timers = {int(i): new_timer(int(i)) for i in created}
        rows.append(interleaved([timers[i] for i in sorted(timers)], rounds))
    return np.concatenate(rows)


def interleaved(timers: Sequence[Any], rounds: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns seconds per inference, (rounds, files).

    The reference, file 0, is measured at both ends of a round, and its two times are averaged.

    Args:
        timers: A timer of each file.
        rounds: For each round the numbers of the other files, in its order.
    """
    times = np.empty((len(rounds), len(timers)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for row, order in zip(times, rounds):  # noqa: B905  `strict` came with Python 3.10
            before = timers[0].sample()
            for i in order:
                row[i] = timers[i].sample()
            row[0] = (before + timers[0].sample()) / 2
    finally:
        if collecting:
            gc.enable()
    return times


# --- on another machine


def main() -> None:
    """Reads a request and files from stdin, and writes the times as a line of JSON to stdout."""
    request = json.loads(sys.stdin.buffer.readline())
    files = [sys.stdin.buffer.read(size) for size in request["sizes"]]
    if hasattr(signal, "alarm"):  # nobody may be left to hear of the result
        signal.alarm(math.ceil(request["timeout"]))
    runtime = _runtime()
    if runtime is None:
        _answer(REFUSAL, {"kind": "runtime", "message": platform.python_version()})
        return
    answer: dict[str, Any] = {"machine": machine(runtime)}
    if files:
        try:
            answer["times"] = _times(runtime, files, request).tolist()
        except (ValueError, RuntimeError, MemoryError) as error:  # of LiteRT
            message = " ".join(str(error).split()) or type(error).__name__
            _answer(REFUSAL, {"kind": "file", "message": message, **answer})
            return
    _answer(TIMES, answer)


def _times(runtime: Any, files: Sequence[bytes], request: dict[str, Any]) -> np.ndarray:
    def new_timer(i: int) -> Timer:
        options = {}
        if not request["xnnpack"]:
            resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options["experimental_op_resolver_type"] = resolver
        interpreter = runtime.Interpreter(
            model_content=files[i], num_threads=request["threads"], **options
        )
        interpreter.allocate_tensors()
        return Timer(interpreter, request["stateful"][i], request["warmup"], request["sample_ms"])

    return timed(new_timer, request["blocks"])


def _runtime() -> Any:
    """The module with the interpreter; None where there is none."""
    for package in RUNTIMES:
        try:
            return importlib.import_module(package + ".interpreter")
        except ImportError:
            continue
    return None


def machine(runtime: Any) -> str:
    """Returns the machine and its runtime, such as "Raspberry Pi 4, aarch64, tflite_runtime 2.14".

    Args:
        runtime: The module with the interpreter.
    """
    package = runtime.__name__.partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", "")
    names = [_board(), platform.machine(), f"{package} {version}".strip()]
    return ", ".join(name for name in names if name)


def _board() -> str:
    """The name of the board, or of the processor."""
    board, processors = "/proc/device-tree/model", "/proc/cpuinfo"
    if os.path.exists(board):
        with open(board, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0 \n")
    if os.path.exists(processors):
        with open(processors, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()


def _answer(mark: str, answer: dict[str, Any]) -> None:
    sys.stdout.write("\n" + mark + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
