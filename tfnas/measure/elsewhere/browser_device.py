"""Latency in a browser: LiteRT for the web (WebAssembly) in Chromium without a window.

A page, the user's copy of the npm package `@litertjs/core` and the files are served to this machine
alone; Chromium opens the page, which times the files and posts the times. LiteRT for the web runs
no int8 ends and no open batch, so files are timed as :func:`tfnas.for_browser` returns them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tfnas.measure.elsewhere.page_server import PageServer
from tfnas.measure.elsewhere.timing_device import (
    DeviceLost,
    DeviceTimes,
    FileRefused,
    TimingDevice,
    TimingPlan,
)
from tfnas.runtime.external_programs import check_timeout, last_lines
from tfnas.runtime.guardian import ending_with_this_process
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.browser_file import for_browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
)
_CHECK_SECONDS = 120.0
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class BrowserDevice(TimingDevice):
    """A browser on this machine that times files, in WebAssembly.

    It needs Chromium or Chrome, and the npm package of LiteRT for the web, which
    `npm install @litertjs/core` puts into `node_modules`.

    Example:
        >>> import tfnas
        >>> device = tfnas.BrowserDevice("web/node_modules/@litertjs/core")
        >>> print(device)
        browser,package=web/node_modules/@litertjs/core
        >>> tfnas.benchmark("model.tflite", measure_on=device)  # doctest: +SKIP

    Args:
        package: Folder of the npm package.
        program: Name or path of Chromium or Chrome; None: the first of them that is installed.
        timeout: Time limit of a measurement, in seconds.

    Raises:
        ValueError: `timeout` is no finite number above 0.

    References:
        LiteRT for the web: https://ai.google.dev/edge/litert/web
    """

    package: str = "node_modules/@litertjs/core"
    program: str | None = None
    timeout: float = 600.0

    kind: ClassVar[str] = "browser"

    def __post_init__(self) -> None:
        check_timeout(self.timeout)

    def check(self) -> str:
        """Opens the browser, loads LiteRT in it, and returns what it is.

        Returns:
            The browser and the package with their versions, in words.

        Raises:
            FileNotFoundError: There is no browser, or no package in the folder.
            DeviceLost: The browser ended (a `ConnectionError`).
            RuntimeError: LiteRT can't be loaded in it.
        """
        return self._measured([], TimingPlan(()), min(self.timeout, _CHECK_SECONDS)).machine

    def check_options(self, threads: int, xnnpack: bool) -> None:
        """Raises ValueError where several threads are requested, or no XNNPACK.

        Args:
            threads: Threads of each interpreter.
            xnnpack: Whether the XNNPACK delegate may run.
        """
        for name, value, needed in (("threads", threads, 1), ("xnnpack", xnnpack, True)):
            if value != needed:
                raise ValueError(f"{name} must be {needed} in a browser, got {value!r}")

    def times(self, files: Sequence[Artifact], plan: TimingPlan) -> DeviceTimes:
        """Times files in the browser in the rounds of a plan.

        Args:
            files: The files, the reference first.
            plan: The rounds, of one thread and with XNNPACK.

        Raises:
            DeviceLost: The browser ended (a `ConnectionError`).
            FileRefused: LiteRT for the web can't run a file (a `ValueError`).
            TimeoutError: It did not finish in `timeout`.
            ValueError: Several threads are requested, or no XNNPACK.
        """
        self.check_options(plan.threads, plan.xnnpack)
        return self._measured(files, plan, self.timeout)

    def _measured(self, files: Sequence[Artifact], plan: TimingPlan, timeout: float) -> DeviceTimes:
        package, helpers, program = self._package(), self._helpers(), self._program()
        request = {**plan.to_dict(), "files": len(files)}
        page = importlib.resources.files("tfnas.measure.elsewhere").joinpath("timing_page.html")
        contents = {"page.html": page.read_bytes(), "request.json": json.dumps(request).encode()}
        for i, file in enumerate(files):
            contents[f"file/{i}"] = for_browser(file).content
        folders = {"core": package, "wasm": package / "wasm", "wasm-utils": helpers}
        with (
            PageServer(contents, folders) as server,
            _browser(program, f"{server.address}page.html") as process,
        ):
            path, answer = _answer(self, server, process, timeout)
        if path == "refusal":
            raise FileRefused(f"{self} can't run file {answer['file']}: {answer['message']}")
        if path != "times":
            raise RuntimeError(f"{self} can't run LiteRT for the web: {answer['message']}")
        machine = f"{_browser_name(answer['machine'])}, @litertjs/core {_version(package)}"
        return DeviceTimes(np.array(answer["times"], np.float64), machine)

    def _package(self) -> pathlib.Path:
        folder = pathlib.Path(self.package)
        if not (folder / "dist" / "index.js").is_file() or not (folder / "wasm").is_dir():
            raise FileNotFoundError(
                "package must be the folder of the npm package @litertjs/core (npm install "
                f"@litertjs/core), got {self.package!r}, which has no dist/index.js or no wasm"
            )
        return folder

    def _helpers(self) -> pathlib.Path:
        """The folder of @litertjs/wasm-utils, which the package needs."""
        folder = pathlib.Path(self.package).resolve()
        places = [folder.parent / "wasm-utils", folder / "node_modules/@litertjs/wasm-utils"]
        for place in places:
            if (place / "dist" / "index.js").is_file():
                return place
        raise FileNotFoundError(
            f"package must have @litertjs/wasm-utils beside it, as npm installs it, got "
            f"{self.package!r} without"
        )

    def _program(self) -> str:
        names = PROGRAMS if self.program is None else (self.program,)
        found = next((path for name in names if (path := shutil.which(name))), None)
        if found is None:
            raise FileNotFoundError(
                f"program must be Chromium or Chrome, got {self.program!r}, and none is installed "
                f"as {', '.join(names)}"
            )
        return found


@contextlib.contextmanager
def _browser(program: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Opens a page in a browser with a profile of its own, and ends the browser with it."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
    ):
        flags = [*_FLAGS, f"--user-data-dir={folder}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # which Chromium has none of for root, as in containers
        process = subprocess.Popen(
            ending_with_this_process([program, *flags, address]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        except DeviceLost as error:
            log.seek(0)
            said = last_lines(log.read().decode("utf-8", "replace"))
            raise DeviceLost(f"{error}: {said}") from error
        finally:
            # macOS refuses the signal where all of the group have ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answer(
    device: BrowserDevice, server: PageServer, process: subprocess.Popen[bytes], timeout: float
) -> tuple[str, dict[str, Any]]:
    """Waits for what the page posts."""
    end = time.monotonic() + timeout
    while True:
        ended = process.poll() is not None  # asked first: an answer may come before the end
        with contextlib.suppress(queue.Empty):
            return server.answers.get(timeout=_POLL_SECONDS)
        if ended:
            raise DeviceLost(f"{device} ended with exit code {process.returncode}")
        if time.monotonic() > end:
            raise TimeoutError(
                f"{device} must answer within {timeout:g} s, got no result: a larger timeout, or "
                "fewer rounds"
            )


def _browser_name(user_agent: str) -> str:
    """The browser's part of a user agent: "Chrome 140.0.0.0"."""
    words = [word for word in user_agent.split() if "Chrom" in word or "Firefox" in word]
    return (words or [user_agent])[0].replace("Headless", "").replace("/", " ")


def _version(package: pathlib.Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((package / "package.json").read_text("utf-8"))["version"])
    return "of unknown version"
