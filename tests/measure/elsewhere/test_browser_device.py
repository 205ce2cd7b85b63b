"""Latency in a browser: a stand-in that asks and posts as the page does, and a real Chromium."""

import json
import os
import pathlib
import shutil
import sys
import urllib.error
import urllib.request

import pytest

import tfnas
from tfnas.measure.elsewhere import timing_device
from tfnas.measure.elsewhere.browser_device import PROGRAMS
from tfnas.measure.elsewhere.page_server import PageServer
from tfnas.measure.latency import reference_artifact

PACKAGE = os.environ.get("TFNAS_LITERTJS", "node_modules/@litertjs/core")
STAND_IN = """#!{python} -IS
import json, pathlib, sys, urllib.request
base = sys.argv[-1].rpartition("/")[0]
get = lambda path: urllib.request.urlopen(base + "/" + path).read()
post = lambda path, value: urllib.request.urlopen(base + "/" + path, json.dumps(value).encode())
here = pathlib.Path(__file__).parent
assert b"loadLiteRt" in get("page.html") and get("core/dist/index.js") == b"index"
assert get("wasm/litert.wasm") == b"wasm" and get("wasm-utils/dist/index.js") == b"helpers"
request = json.loads(get("request.json"))
for i in range(request["files"]):
    (here / f"file{{i}}.tflite").write_bytes(get(f"file/{{i}}"))
mode = (here / "mode").read_text()
if mode == "ends":
    sys.exit("no display")
if mode == "refuses":
    post("refusal", {{"file": 1, "message": "no kernel for CUSTOM"}})
rounds = sum(len(rounds) for _, rounds in request["blocks"])
agent = "Mozilla/5.0 (X11) AppleWebKit/537.36 HeadlessChrome/140.0.0.0 Safari/537.36"
times = [[0.001 * (i + 1) for i in range(request["files"])]] * rounds
post("times", {{"machine": agent, "times": times}})
"""


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """The device behind the stand-in, and a function that sets what it does."""
    program = tmp_path / "chromium"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    core, helpers = (tmp_path / "@litertjs" / name for name in ("core", "wasm-utils"))
    for path, content in {
        core / "dist" / "index.js": "index",
        core / "wasm" / "litert.wasm": "wasm",
        core / "package.json": '{"version": "2.5.3"}',
        helpers / "dist" / "index.js": "helpers",
        tmp_path / "mode": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(timing_device, "PAUSES", (0.0,))
    device = tfnas.BrowserDevice(str(core), program=str(program), timeout=60)
    return device, (tmp_path / "mode").write_text


def test_files_go_to_the_page_and_times_come_back(browser, tmp_path):
    device, _ = browser
    assert device.check() == "Chrome 140.0.0.0, @litertjs/core 2.5.3"
    [latency] = tfnas.benchmark(reference_artifact(), rounds=7, measure_on=device)
    assert (latency.ratio, latency.rounds) == (2, 7)
    assert latency.device == f"{device}: Chrome 140.0.0.0, @litertjs/core 2.5.3"
    served = tfnas.Artifact.load(tmp_path / "file1.tflite")
    assert served.inputs[0].shape == (1, 48, 48, 3)  # LiteRT for the web takes no open batch


def test_a_browser_that_ends_is_tried_again_and_a_file_that_is_refused_is_not(browser):
    device, do = browser
    do("ends")
    with pytest.raises(ConnectionError, match=r"1 further attempts .* exit code 1: no display"):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=device)
    do("refuses")
    with pytest.raises(ValueError, match="can't run file 1: no kernel for CUSTOM"):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=device)


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ({}, {"threads": 2}, "threads must be 1 in a browser, got 2"),
        ({}, {"xnnpack": False}, "xnnpack must be True in a browser, got False"),
        ({"package": "nothing"}, {}, "package must be the folder of the npm package .*'nothing'"),
        ({"program": "no-browser"}, {}, "program must be Chromium or Chrome, got 'no-browser'"),
    ],
)
def test_what_a_browser_can_not_do_is_an_error_first(browser, device, options, message):
    import dataclasses

    changed = dataclasses.replace(browser[0], **device)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=changed, **options)


def test_the_server_serves_nothing_else(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.js").write_text("a")
    (tmp_path / "secret.txt").write_text("secret")
    with PageServer({"page.html": b"page"}, {"open": tmp_path / "open"}) as server:

        def get(address):
            with urllib.request.urlopen(address) as answer:
                return answer.read(), answer.headers["Content-Type"]

        assert get(f"{server.address}page.html") == (b"page", "text/html")
        assert get(f"{server.address}open/a.js?x") == (b"a", "text/javascript")
        host = server.address.removesuffix(f"{server.secret}/")
        paths = ["open/../secret.txt", "open/%2e%2e/secret.txt", "open/", "secret.txt", ""]
        for address in (*(server.address + path for path in paths), f"{host}page.html"):
            with pytest.raises(urllib.error.HTTPError, match="404") as error:
                get(address)
            error.value.close()
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            urllib.request.urlopen(f"{host}times", b"{}")
        error.value.close()
        urllib.request.urlopen(f"{server.address}times", json.dumps({"a": 1}).encode()).close()
        assert server.answers.get_nowait() == ("times", {"a": 1})


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, PROGRAMS)) or not pathlib.Path(PACKAGE, "dist").is_dir(),
    reason="no Chromium, or no @litertjs/core in node_modules or TFNAS_LITERTJS",
)
def test_a_real_chromium(artifacts):
    files = [artifacts["float32"], artifacts["int8"]]
    floats, integers = tfnas.benchmark(files, rounds=6, measure_on=f"browser,package={PACKAGE}")
    assert floats.ratio > 0
    assert integers.ratio > 0
    assert "Chrome" in floats.device
