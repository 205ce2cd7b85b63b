"""Throughput of files in examples per second, over batch sizes and numbers of threads.

Latency matters on a phone, throughput on a server: a batch shares the fixed cost of each
operator, and threads share the work, so which of two files is better may depend on both. As in
:mod:`tfnas.measure.latency`, all files are measured in interleaved rounds, in a new order each
round. The files of one setting are measured right after each other, so that other load on the
machine cancels out of their ratio.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.reading import arrays
from tfnas.measure.latency import as_artifacts, check_rounds, median_interval
from tfnas.table import Tabular
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_runs import BatchRefused, fixed_batch

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData

_PASSES = 4  # sets of new interpreters: the addresses of their buffers shift their times
_SETTINGS = ("batch_sizes", "threads")


@dataclasses.dataclass(frozen=True)
class Throughput(Tabular):
    """Throughput of a file at one batch size and number of threads.

    Args:
        file: Index of the file among the measured ones.
        batch_size: Examples per invocation.
        threads: Threads of the interpreter.
        per_second: Median examples per second; None if the file does not take the batch.
        low: Lower end of the 95% interval of that median.
        high: Upper end of it.
        ratio: Median over the rounds of (examples per second / those of the first file in the
            same round, batch and threads), no unit; None if one of the two is unknown.
        ratio_low: Lower end of the 95% interval of that median.
        ratio_high: Upper end of it.
        rounds: Number of interleaved rounds.
        note: Why there are no numbers, else empty.
    """

    file: int
    batch_size: int
    threads: int
    per_second: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    rounds: int = 0
    note: str = ""

    @staticmethod
    def headers() -> list[str]:
        """Returns the titles of the columns of :meth:`row`."""
        return ["file", "threads", "batch", "examples/s", "95% interval", "to the first [95%]"]

    def row(self, label: str) -> list[str]:
        """Returns the throughput as a row of a table.

        Args:
            label: Name of the file.
        """
        start = [label, str(self.threads), str(self.batch_size)]
        if self.per_second is None:
            return [*start, self.note, "", ""]
        ratio = ""
        if self.ratio is not None and self.file == 0:
            ratio = "1"
        elif self.ratio is not None:
            ratio = f"{self.ratio:.3f}x [{self.ratio_low:.3f}, {self.ratio_high:.3f}]"
        return [*start, f"{self.per_second:,.0f}", f"[{self.low:,.0f}, {self.high:,.0f}]", ratio]

    def rows(self) -> list[list[str]]:
        """Returns the throughput as the one row of a table."""
        return [self.row(f"file {self.file}")]

    def __str__(self) -> str:
        return " ".join(part for part in self.row(f"file {self.file}") if part)


def throughput(
    files: Artifact | str | os.PathLike[str] | Sequence[Any],
    x: ExampleData | None = None,
    batch_sizes: Sequence[int] = (1, 8, 32),
    threads: Sequence[int] = (1, 2),
    *,
    rounds: int = 20,
    xnnpack: bool = True,
    sample_ms: float = 3.0,
    seed: int = 0,
) -> list[Throughput]:
    """Measures the throughput of files at each batch size and number of threads.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> [found] = tfnas.throughput(tfnas.to_tflite(model), None, [4], [1], rounds=6)
        >>> found.batch_size, found.low <= found.per_second <= found.high, found.ratio
        (4, True, 1.0)

    Args:
        files: An artifact or the path of a file, or a sequence of them; ratios are to the first.
        x: Typical examples, (n, ...); with several inputs a dictionary by input name. They are
            repeated to fill a batch. None: noise.
        batch_sizes: Examples per invocation, each at least 1.
        threads: Threads of the interpreter, each at least 1.
        rounds: Number of interleaved rounds, at least 6.
        xnnpack: Whether the XNNPACK delegate may run.
        sample_ms: A sample repeats the batch until it lasts this long, in ms.
        seed: Seed of the order within a round.

    Returns:
        One record per number of threads, batch size and file, in that order. If an operator of
        a file fixes the batch size, its record has a note and no numbers.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """
    artifacts = as_artifacts(files, "files")
    for name, values in zip(_SETTINGS, (batch_sizes, threads), strict=True):
        _check_numbers(name, values)
    check_rounds(rounds)
    if not sample_ms > 0:
        raise ValueError(f"sample_ms must be above 0, got {sample_ms!r}")
    columns = [_columns(file, x) for file in artifacts]
    settings = [(count, batch) for count in threads for batch in batch_sizes]
    rng = np.random.default_rng(seed)
    speeds: dict[tuple[int, int, int], list[float]] = {}
    notes: dict[tuple[int, int, int], str] = {}
    for block in np.array_split(np.arange(rounds), min(_PASSES, rounds)):
        runners: dict[tuple[int, int, int], _Runner] = {}
        for key in [(*s, place) for s in settings for place in range(len(artifacts))]:
            if key in notes:
                continue
            count, batch, place = key
            try:
                runners[key] = _Runner(
                    artifacts[place], columns[place], batch, count, xnnpack, sample_ms
                )
            except BatchRefused as error:
                notes[key] = str(error)
        for _ in block:
            for setting in rng.permutation(len(settings)):
                for place in rng.permutation(len(artifacts)):
                    key = (*settings[setting], int(place))
                    if key in runners:
                        speeds.setdefault(key, []).append(runners[key].sample())
    return [
        _record((*s, place), speeds, notes) for s in settings for place in range(len(artifacts))
    ]


class _Runner:
    """Times batches of one file; a sample repeats a batch until it lasts `sample_ms`."""

    def __init__(
        self,
        file: Artifact,
        columns: Sequence[np.ndarray],
        batch: int,
        threads: int,
        xnnpack: bool,
        sample_ms: float,
    ) -> None:
        self.batch = batch
        shapes = [(batch, *column.shape[1:]) for column in columns]
        if fixed_batch(file.inputs) not in (None, batch):
            raise BatchRefused(f"takes no batch of {batch}")
        try:
            interpreter = file.interpreter(threads, xnnpack, shapes)
            for tensor, column, shape in zip(file.inputs, columns, shapes, strict=True):
                interpreter.set_tensor(tensor.index, tensor.quantize(np.resize(column, shape)))
            interpreter.invoke()
        except RuntimeError as error:
            raise BatchRefused(f"takes no batch of {batch}") from error
        for tensor in file.outputs:
            out = interpreter.get_tensor(tensor.index)
            if out.ndim == 0 or len(out) != batch:
                raise BatchRefused(f"takes no batch of {batch}: {tensor.name} is {out.shape}")
        self.invoke = interpreter.invoke
        once = min(self._run(1) for _ in range(2))
        self.repeats = max(1, math.ceil(sample_ms / 1000 / max(once, 1e-7)))

    def sample(self) -> float:
        """Examples per second, after an untimed batch that warms the caches."""
        self.invoke()
        return self.batch * self.repeats / self._run(self.repeats)

    def _run(self, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            self.invoke()
        return time.perf_counter() - start


def _record(
    key: tuple[int, int, int],
    speeds: dict[tuple[int, int, int], list[float]],
    notes: dict[tuple[int, int, int], str],
) -> Throughput:
    count, batch, place = key
    if key not in speeds:
        return Throughput(place, batch, count, note=notes[key])
    own = np.array(speeds[key])
    low, high = median_interval(own)
    found = Throughput(
        place, batch, count, float(np.median(own)), low, high, rounds=len(own), note=""
    )
    first = speeds.get((count, batch, 0))
    if first is None:
        return found
    ratios = own / np.array(first)
    low, high = median_interval(ratios)
    middle = float(np.median(ratios))
    return dataclasses.replace(found, ratio=middle, ratio_low=low, ratio_high=high)


def _check_numbers(name: str, values: Any) -> None:
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    valid = all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in listed)
    if not listed or not valid or len(set(listed)) < len(listed):
        raise ValueError(f"{name} must hold different whole numbers >= 1, got {values!r}")


def _columns(file: Artifact, x: Any) -> list[np.ndarray]:
    """One array per input of the file, in the order of its inputs, examples first."""
    if x is None:
        return [_noise(tensor.shape[1:], tensor.scale, tensor.dtype) for tensor in file.inputs]
    inputs = arrays(x, what="x")[0]
    names = [tensor.name for tensor in file.inputs]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"x must hold the inputs {names}, got {sorted(inputs)}")
        columns = [inputs[name] for name in names]
    else:
        columns = [inputs]
    if len(columns) != len(names):
        raise ValueError(f"x must be a dictionary of the inputs {names}, got one array")
    for tensor, column in zip(file.inputs, columns, strict=True):
        expected, got = tensor.shape[1:], column.shape[1:]
        if len(expected) != len(got) or any(
            size not in (-1, found) for size, found in zip(expected, got, strict=True)
        ):
            raise ValueError(
                f"x must hold examples of shape {expected} for input {tensor.name!r}, got {got}"
            )
    return columns


def _noise(shape: tuple[int, ...], scale: float, dtype: str) -> np.ndarray:
    if -1 in shape:
        raise ValueError(
            f"x must hold examples if an input has an open shape, got None for {shape}"
        )
    if np.dtype(dtype).kind in "iu" and not scale:
        return np.zeros((1, *shape), dtype)  # may be an index, and 0 is valid in any vocabulary
    return np.random.default_rng(0).uniform(0, 100, (1, *shape)).astype(np.float32)
