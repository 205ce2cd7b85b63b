"""Latency on another machine over ssh, such as a Raspberry Pi, with that machine's own LiteRT.

One connection does all: :mod:`tfnas.measure.elsewhere.timing_script` and the files go to the other
machine's Python through its standard input, the times come back as a line of JSON. Nothing is
written there, so nothing is left behind.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np

from tfnas.measure.elsewhere.timing_device import (
    DeviceLost,
    DeviceTimes,
    FileRefused,
    TimingDevice,
    TimingPlan,
)
from tfnas.measure.elsewhere.timing_script import REFUSAL, TIMES
from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.external_programs import check_timeout, last_lines
from tfnas.tflite.artifact import Artifact

_OPTIONS = (
    *("-T", "-o", "BatchMode=yes"),  # no terminal, and no question that nobody answers
    *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
    *("-o", "ControlMaster=no"),  # a new shared connection would outlive the call, its output open
    *("-o", "LogLevel=INFO"),  # a lost connection must be told from a program that crashed there
)
_BEGIN = (
    "import sys;n=int(sys.stdin.buffer.readline());"
    'exec(compile(sys.stdin.buffer.read(n),"tfnas_timing","exec"),{"__name__":"__main__"})'
)
_HOST = re.compile(r"[^\s,-][^\s,]*")
_CONNECTION, _NOT_EXECUTABLE, _NOT_FOUND = 255, 126, 127  # exit codes of ssh and of shells
# Of shells, for a program that a signal ended: those of crashes, and the one for lack of memory.
_CRASHES = {128 + number for number in (4, 5, 6, 7, 8, 9, 11)}
_CHECK_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class SshDevice(TimingDevice):
    """A machine that times files and is reached by ssh, such as a Raspberry Pi.

    It needs a log-in by key and a Python with ai-edge-litert or tflite-runtime.

    Example:
        >>> import tfnas
        >>> device = tfnas.SshDevice("pi@raspberrypi", python="~/venv/bin/python")
        >>> print(device)
        ssh:pi@raspberrypi,python=~/venv/bin/python
        >>> tfnas.benchmark("model.tflite", measure_on=device)  # doctest: +SKIP

    Args:
        host: The machine, as `ssh` takes it: "user@name", a name of `~/.ssh/config`, or an address.
        python: Its Python: a name or a path; of a relative path, and of "~/", from the home folder.
        port: Port of its ssh server; None: as `ssh` is configured.
        config: A file of settings instead of `~/.ssh/config`, as of `ssh -F`; None: that one.
        program: Name or path of `ssh` on this machine.
        timeout: Time limit of a measurement, in seconds.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        OpenSSH's `ssh_config`, for keys, ports and jumps over other machines.
    """

    host: str
    python: str = "python3"
    port: int | None = None
    config: str | None = None
    program: str = "ssh"
    timeout: float = 600.0

    kind: ClassVar[str] = "ssh"
    address: ClassVar[str | None] = "host"

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not _HOST.fullmatch(self.host):
            raise ValueError(
                f"host must be a machine as ssh takes it, such as 'pi@raspberrypi', "
                f"got {self.host!r}"
            )
        if not isinstance(self.python, str) or not self.python:
            raise ValueError(f"python must be the name or path of a Python, got {self.python!r}")
        check_count("port", self.port, 1, optional=True)
        check_timeout(self.timeout)

    def check(self) -> str:
        """Reaches the machine and returns what it is.

        Returns:
            The machine, its processor and its LiteRT, in words.

        Raises:
            FileNotFoundError: There is no `ssh`.
            DeviceLost: The machine can't be reached (a `ConnectionError`).
            RuntimeError: It has no such Python, or that has no LiteRT.
        """
        plan = TimingPlan(())
        return str(self._ask([], plan, min(self.timeout, _CHECK_SECONDS))["machine"])

    def times(self, files: Sequence[Artifact], plan: TimingPlan) -> DeviceTimes:
        """Times files on the machine in the rounds of a plan.

        Args:
            files: The files, the reference first.
            plan: The rounds.

        Raises:
            DeviceLost: The machine can't be reached, or was lost (a `ConnectionError`).
            FileRefused: Its LiteRT can't run a file, or crashes with it (a `ValueError`).
            RuntimeError: It has no such Python, or that has no LiteRT.
            TimeoutError: It did not finish in `timeout`.
        """
        answer = self._ask(files, plan, self.timeout)
        return DeviceTimes(np.array(answer["times"], np.float64), str(answer["machine"]))

    def _ask(self, files: Sequence[Artifact], plan: TimingPlan, timeout: float) -> dict[str, Any]:
        """What the script on the machine answers."""
        sizes, stateful = [file.size for file in files], [f.state == "tensors" for f in files]
        request = {**plan.to_dict(), "sizes": sizes, "stateful": stateful, "timeout": timeout}
        script = _script()
        begin = b"%d\n" % len(script) + script + json.dumps(request).encode() + b"\n"
        done = self._run(begin + b"".join(file.content for file in files), timeout)
        for line in done.stdout.splitlines():
            if line.startswith(TIMES):
                found: dict[str, Any] = json.loads(line.removeprefix(TIMES))
                return found
            if line.startswith(REFUSAL):
                self._refused(**json.loads(line.removeprefix(REFUSAL)))
        self._failed(done, len(files))

    def _run(self, data: bytes, timeout: float) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                self._command(),
                input=data,
                capture_output=True,
                timeout=timeout,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise FileNotFoundError(
                f"program must be the OpenSSH client, got {self.program!r}, which is no program"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(
                f"{self} must answer within {timeout:g} s, got no result: a larger timeout, or "
                "fewer rounds"
            ) from error
        texts = (each.decode("utf-8", "replace") for each in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def _command(self) -> list[str]:
        home, _, inside = self.python.partition("~/")
        python = f"~/{shlex.quote(inside)}" if not home and inside else shlex.quote(self.python)
        own = [*(["-F", self.config] if self.config else [])]
        own += ["-p", str(self.port)] if self.port else []
        return [
            self.program,
            *_OPTIONS,
            *own,
            "--",
            self.host,
            f"{python} -c {shlex.quote(_BEGIN)}",
        ]

    def _refused(self, kind: str, message: str, machine: str = "") -> NoReturn:
        if kind == "file":
            raise FileRefused(f"{self} ({machine}) can't run a file: {message}")
        raise RuntimeError(
            f"python {self.python!r} of {self.host} (Python {message}) must have ai-edge-litert or "
            "tflite-runtime, got neither: `pip install ai-edge-litert` there"
        )

    def _failed(self, done: subprocess.CompletedProcess[str], files: int) -> NoReturn:
        """Raises what ssh, the shell there or Python has written."""
        said = last_lines(done.stderr)
        # ssh says so if it ends by itself, and nothing where a signal has ended the program there.
        silent = done.returncode == _CONNECTION and not done.stderr.strip()
        if silent or done.returncode in _CRASHES:
            error = FileRefused if files else RuntimeError
            raise error(
                f"{self} ended its Python by a signal: its LiteRT crashed, or it has too little "
                f"memory: {said}"
            )
        if done.returncode == _CONNECTION:
            raise DeviceLost(
                f"host must be a machine that ssh reaches and logs in by key, got {self.host!r}: "
                f"{said}"
            )
        if done.returncode in (_NOT_FOUND, _NOT_EXECUTABLE):
            raise RuntimeError(
                f"python must be a Python of {self.host}, got {self.python!r}: {said}"
            )
        if "No module named 'numpy'" in done.stderr:
            raise RuntimeError(
                f"python {self.python!r} of {self.host} must have NumPy and ai-edge-litert, got no "
                "NumPy: `pip install ai-edge-litert` there"
            )
        if done.returncode < 0 or done.returncode > 128:  # a signal, here or there
            raise DeviceLost(
                f"{self} ended its measurement with exit code {done.returncode}: {said}"
            )
        raise RuntimeError(f"{self} failed with exit code {done.returncode}: {said}")


def _script() -> bytes:
    package = importlib.resources.files("tfnas.measure.elsewhere")
    return package.joinpath("timing_script.py").read_bytes()
