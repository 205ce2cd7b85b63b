"""What all devices that time files have in common: the plan of a measurement, errors, retries."""

from __future__ import annotations

import abc
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np

from tfnas.runtime.failed_work import FailedWork
from tfnas.runtime.turns import turn_at
from tfnas.tflite.artifact import Artifact

PAUSES = (5.0, 20.0, 60.0)  # seconds before a device that was lost is tried again
_LOG = logging.getLogger(__name__)
_BLOCKS = 25  # sets of new interpreters
Block = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]


class DeviceLost(ConnectionError):
    """A device can't be reached, or was lost while it measured; the message says how."""


class FileRefused(FailedWork):
    """The device's LiteRT can't run a file; the message has its reason."""


@dataclasses.dataclass(frozen=True)
class TimingPlan:
    """The rounds of a measurement, which the same seed draws on all devices.

    Args:
        blocks: For each set of new interpreters the numbers of all files in the order of their
            creation, and for each round those of the files beside the reference, file 0, in order.
        threads: Threads of each interpreter.
        xnnpack: Whether the XNNPACK delegate may run.
        warmup: Untimed inferences of a new interpreter.
        sample_ms: A sample repeats the inference until it lasts this long, in ms.
    """

    blocks: tuple[Block, ...] = dataclasses.field(repr=False)
    threads: int = 1
    xnnpack: bool = True
    warmup: int = 3
    sample_ms: float = 3.0

    @classmethod
    def of(cls, files: int, rounds: int, seed: int, **options: Any) -> TimingPlan:
        """Returns the plan of some files beside the reference.

        Example:
            >>> plan = TimingPlan.of(files=2, rounds=30, seed=0, threads=4)
            >>> len(plan.blocks), plan.rounds, sorted(plan.blocks[0][0])
            (25, 30, [0, 1, 2])

        Args:
            files: Number of files without the reference.
            rounds: Number of rounds.
            seed: Seed of all orders.
            **options: The other fields.
        """
        rng = np.random.default_rng(seed)
        blocks = []
        for block in np.array_split(np.arange(rounds), min(_BLOCKS, rounds)):
            created = tuple(rng.permutation(files + 1).tolist())
            orders = (tuple((1 + rng.permutation(files)).tolist()) for _ in block)
            blocks.append((created, tuple(orders)))
        return cls(tuple(blocks), **options)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return sum(len(orders) for _, orders in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain dictionaries, lists and numbers, for another machine."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class DeviceTimes:
    """The result of a measurement on a device.

    Args:
        seconds: Seconds per inference, (rounds, files), the reference first.
        machine: What the device is, such as "Raspberry Pi 4, aarch64, ai_edge_litert 2.1".
    """

    seconds: np.ndarray
    machine: str


class TimingDevice(abc.ABC):
    """A device that times files, such as :class:`tfnas.SshDevice`.

    It prints as the text that `measure_on` takes, with the options that have no default; a comma
    of a value is doubled. The fields
    of its dataclass are these options.

    Example:
        >>> import tfnas
        >>> device = tfnas.timing_device("ssh:pi@raspberrypi")
        >>> isinstance(device, tfnas.TimingDevice), device.host
        (True, 'pi@raspberrypi')
    """

    kind: ClassVar[str]
    """First word of its text."""
    address: ClassVar[str | None] = None
    """The field that follows the kind; None: there is none."""

    def __str__(self) -> str:
        fields = {each.name: each for each in dataclasses.fields(cast(Any, self))}
        address = None if self.address is None else getattr(self, self.address)
        texts = [self.kind if address is None else f"{self.kind}:{address}"]
        for name, field in fields.items():
            value = getattr(self, name)
            if name != self.address and value != field.default:
                texts.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
        return ",".join(text.replace(",", ",,") for text in texts)

    @abc.abstractmethod
    def check(self) -> str:
        """Reaches the device and returns what it is; raises what keeps it from measuring.

        Returns:
            The machine and its runtime, in words.

        Raises:
            FileNotFoundError: A program or a file of this machine is missing.
            DeviceLost: The device can't be reached (a `ConnectionError`).
            RuntimeError: The device lacks what it needs, such as LiteRT.
        """

    def check_options(self, threads: int, xnnpack: bool) -> None:  # noqa: B027  a hook
        """Raises ValueError where the device can't measure in this way; most take any.

        Args:
            threads: Threads of each interpreter.
            xnnpack: Whether the XNNPACK delegate may run.
        """

    @abc.abstractmethod
    def times(self, files: Sequence[Artifact], plan: TimingPlan) -> DeviceTimes:
        """Times files in the rounds of a plan.

        Args:
            files: The files, the reference first.
            plan: The rounds.

        Returns:
            The times.

        Raises:
            DeviceLost: The device was lost; another attempt may succeed (a `ConnectionError`).
            FileRefused: The device can't run a file (a `ValueError`).
            TimeoutError: The device answers, but takes longer than its `timeout`.
        """


def times_with_retries(
    device: TimingDevice, files: Sequence[Artifact], plan: TimingPlan
) -> DeviceTimes:
    """Times files on a device; where it is lost, it is tried again after a pause.

    Trials in several processes wait for each other: two at once would slow each other down.

    Args:
        device: The device.
        files: The files, the reference first.
        plan: The rounds.

    Raises:
        DeviceLost: It was lost in every attempt.
    """
    for pause in PAUSES:
        try:
            return _times_in_turn(device, files, plan)
        except DeviceLost as error:
            _LOG.warning("%s was lost: %s; next attempt in %g s", device, error, pause)
            time.sleep(pause)
    try:
        return _times_in_turn(device, files, plan)
    except DeviceLost as error:
        raise DeviceLost(
            f"measure_on {str(device)!r} was lost and did not come back in {len(PAUSES)} further "
            f"attempts over {sum(PAUSES):g} s: {error}. Nothing that was finished is lost: the "
            "same call goes on once the device is back"
        ) from error


def _times_in_turn(
    device: TimingDevice, files: Sequence[Artifact], plan: TimingPlan
) -> DeviceTimes:
    address = device.kind if device.address is None else getattr(device, device.address)
    with turn_at(f"{device.kind} {address}"):
        return device.times(files, plan)
