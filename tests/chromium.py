"""A page in a real Chromium, driven through its debugging pipe: no driver, no port, no network."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"),
)
SECONDS = 120  # that an answer may take on a busy machine


def browser():
    """Returns the path of Chromium; None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class NoBrowser(RuntimeError):
    """Chromium does not run here."""


class Chromium:
    """A page of a browser.

    Example:
        >>> with chromium() as page:  # doctest: +SKIP
        ...     page.open(path, width=390)
        ...     page.value("document.title")
    """

    def __init__(self, to_browser, from_browser):
        self._out, self._in, self._rest, self._number = to_browser, from_browser, b"", 0
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.send("Page.enable")
        self.send("Runtime.enable")

    def send(self, method, **params):
        """Sends a command of the DevTools protocol and returns its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self):
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise NoBrowser("Chromium does not answer")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def open(self, path, width, *, dark=False, height=1500, script=True):
        """Opens a file in a window of a width in pixels."""
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **shape)
        self.scheme("dark" if dark else "light")
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.send("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        until = time.monotonic() + SECONDS
        while (
            self.value("document.readyState") != "complete"
            or self.value("location.protocol") != "file:"
        ):
            assert time.monotonic() < until, f"{path} was not opened"
            time.sleep(0.02)

    def scheme(self, name):
        """Sets what the page takes for the reader's choice: "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.send("Emulation.setEmulatedMedia", media="", features=[feature])

    def value(self, expression):
        """Returns the value of an expression of JavaScript."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def center(self, selector):
        """Returns (x, y) of the middle of an element, after it was scrolled into view."""
        return self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )

    def move_to(self, selector):
        """Moves the mouse to the middle of an element."""
        x, y = self.center(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector):
        """Clicks on the middle of an element."""
        x, y = self.center(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key):
        """Presses a key, such as "Enter" or "ArrowRight"."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, height=None):
        """Returns the upper part of the page as a PNG file; None: the whole page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "scale": 1}
        clip["height"] = min(height or size["height"], size["height"])
        shot = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def chromium():
    """Starts a browser and yields its page.

    Raises:
        NoBrowser: There is none, or it does not run here.
    """
    path = browser()
    if path is None:
        raise NoBrowser("no Chromium")
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            # The protocol's pipe is of the descriptors 3 and 4.
            [
                *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash"),
                *(path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Chromium(to_browser, from_browser)
        finally:
            os.close(to_browser)
            os.close(from_browser)
            process.terminate()
            process.wait(timeout=60)
