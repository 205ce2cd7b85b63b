"""An Android phone behind the Android debug bridge (adb), with TFLite's `benchmark_model` on it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence

from tfnas.runtime.external_programs import last_lines
from tfnas.tflite.artifact import Artifact

FOLDER = "/data/local/tmp/tfnas"
_BINARY = "benchmark_model"
_STATUS = "tfnas-exit-status"
_WRONG_ARCHITECTURE = ("exec format error", "not executable", "bad elf", "no such file")


class PhoneGone(RuntimeError):
    """No phone can be used, or adb failed; the message says how."""


def check_binary(binary: str | os.PathLike[str]) -> None:
    """Checks that the benchmark tool's file exists.

    Args:
        binary: Path of TFLite's `benchmark_model` for Android.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not pathlib.Path(binary).is_file():
        raise FileNotFoundError(
            "binary must be the path of TFLite's benchmark_model, got "
            f"{os.fspath(binary)!r}, where there is no file"
        )


class Phone:
    """A connected phone, driven through adb.

    Args:
        adb: Name or path of the Android debug bridge.
        serial: The phone's serial number; None: the only one that is connected.
        timeout: Time limit of each call of adb, in seconds.

    Raises:
        FileNotFoundError: There is no `adb`.
        PhoneGone: No phone can be used (a `RuntimeError`).
    """

    def __init__(self, adb: str, serial: str | None, timeout: float) -> None:
        self._adb, self._timeout = adb, timeout
        self._serial = _chosen(self._call("devices"), serial)
        self._folder = f"{FOLDER}-{_run_name()}"
        self.model = self._property("ro.product.model") or "unknown phone"
        self.abi = self._property("ro.product.cpu.abi") or "unknown processor"

    @contextlib.contextmanager
    def pushed(
        self, binary: str | os.PathLike[str], files: Mapping[str, Artifact]
    ) -> Iterator[None]:
        """Pushes the tool and files to the phone, and removes them on exit.

        Args:
            binary: Path of the tool.
            files: Name on the phone -> file.
        """
        try:
            self._shell(f"mkdir -p {self._folder}")
            with tempfile.TemporaryDirectory() as folder:
                here = pathlib.Path(folder)
                sources = {_BINARY: binary}
                sources |= {name: file.save(here / name) for name, file in files.items()}
                for name, source in sources.items():
                    self._on_phone("push", os.fspath(source), f"{self._folder}/{name}")
            self._shell(f"chmod +x {self._folder}/{_BINARY}")
            yield
        except TimeoutError:
            with contextlib.suppress(RuntimeError, OSError):  # or it runs on and heats the phone
                self._shell(f"pkill -f '{self._folder}/[b]enchmark_model'")  # [b]: not this shell
            raise
        finally:
            with contextlib.suppress(RuntimeError, OSError):  # an earlier error is what matters
                paths = " ".join(f"{self._folder}/{name}" for name in (_BINARY, *files))
                self._shell(f"rm -f {paths}; rmdir {self._folder}")

    def benchmark(self, graph: str, flags: Sequence[str]) -> str:
        """Runs the tool on a file of the phone and returns its output.

        Args:
            graph: The file's name on the phone.
            flags: Flags of the tool.

        Raises:
            RuntimeError: The tool failed.
            TimeoutError: It did not end in time.
        """
        where = self._folder
        command = " ".join([f"{where}/{_BINARY}", f"--graph={where}/{graph}", *flags])
        # adb does not return the exit status on phones before Android 7.
        output = self._on_phone("shell", f"{command} 2>&1; echo {_STATUS}=$?")
        text, mark, status = output.rpartition(f"{_STATUS}=")
        if mark and status.strip() == "0":
            return text
        code = status.strip() if mark else "unknown"
        mismatch = any(words in output.lower() for words in _WRONG_ARCHITECTURE)
        hint = f"; it must be built for the phone's processor, {self.abi}" if mismatch else ""
        raise RuntimeError(
            f"benchmark_model failed on {self.model} with exit code {code}{hint}: "
            f"{last_lines(text)}"
        )

    def _property(self, name: str) -> str:
        return self._on_phone("shell", f"getprop {name}").strip()

    def _shell(self, command: str) -> None:
        self._on_phone("shell", command)

    def _on_phone(self, *arguments: str) -> str:
        return self._call("-s", self._serial, *arguments)

    def _call(self, *arguments: str) -> str:
        """Runs adb and returns its output."""
        try:
            done = subprocess.run(
                [self._adb, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=self._timeout,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise FileNotFoundError(
                f"adb must be the Android debug bridge, of Android's platform-tools, "
                f"got {self._adb!r}, which is no program"
            ) from error
        except subprocess.TimeoutExpired as error:
            command = next((a for a in arguments if a in ("devices", "push", "shell")), "")
            raise TimeoutError(
                f"adb {command} must end within {self._timeout:g} s, got no result"
            ) from error
        output = done.stdout.replace("\r\n", "\n")
        if done.returncode:
            raise PhoneGone(f"adb failed with exit code {done.returncode}: {last_lines(output)}")
        return output


def _run_name() -> str:
    """A unique suffix: two runs on one phone must not share a folder."""
    return uuid.uuid4().hex[:8]


def _chosen(output: str, serial: str | None) -> str:
    """The serial number to use, of those in the output of `adb devices`."""
    lines = output.partition("List of devices attached")[2].splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip()]
    states = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    if serial is None:
        if not states:
            raise PhoneGone("a phone must be connected, with USB debugging on, got none")
        if len(states) > 1:
            raise PhoneGone(f"serial must name one of several phones, got None: {_listed(states)}")
        [serial] = states
    elif serial not in states:
        raise PhoneGone(
            f"serial must be that of a connected phone, got {serial!r}: {_listed(states)}"
        )
    if states[serial] == "unauthorized":
        raise PhoneGone(f"phone {serial} is unauthorized: allow USB debugging on its screen")
    if states[serial] != "device":
        raise PhoneGone(f"phone {serial} must be ready, got {states[serial]!r}")
    return serial


def _listed(states: dict[str, str]) -> str:
    return ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
