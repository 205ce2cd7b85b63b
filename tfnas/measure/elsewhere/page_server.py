"""A web server for one page: it serves a few files to this machine alone and takes one answer."""

from __future__ import annotations

import http.server
import json
import pathlib
import queue
import secrets
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

_TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}
_ISOLATED = {  # pages of several threads, and precise clocks, need these
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageServer:
    """Serves contents and folders below an address that nobody can guess, while it is open.

    Args:
        contents: Path below the address -> what is served there.
        folders: First part of a path -> the folder that the rest of it is in.
    """

    def __init__(self, contents: Mapping[str, bytes], folders: Mapping[str, pathlib.Path]) -> None:
        self.contents = dict(contents)
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        self.secret = secrets.token_urlsafe(16)
        self.answers: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        """Path and content of what the page posts, as it comes."""
        handler = type("PageHandler", (_Handler,), {"pages": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """The address that paths are below, with a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self.secret}/"

    def content(self, path: str) -> bytes | None:
        """Returns what is served at a path; None: nothing.

        Args:
            path: The path below the address.
        """
        if path in self.contents:
            return self.contents[path]
        name, _, rest = path.partition("/")
        if not rest or name not in self.folders:
            return None
        file = (self.folders[name] / rest).resolve()
        inside = file.is_relative_to(self.folders[name]) and file.is_file()
        return file.read_bytes() if inside else None

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request; each server has a class of its own."""

    pages: PageServer

    def do_GET(self) -> None:
        """Serves a file."""
        path = self._path()
        content = None if path is None else self.pages.content(path)
        if path is None or content is None:
            self.send_error(404)
            return
        self.send_response(200)
        kind = _TYPES.get(pathlib.PurePosixPath(path).suffix, "application/octet-stream")
        for name, value in {**_ISOLATED, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Takes an answer of the page."""
        path = self._path()
        if path is None:
            self.send_error(404)
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.pages.answers.put((path, body))
        self.send_response(204)
        self.end_headers()

    def _path(self) -> str | None:
        """The path below the secret; None of other paths, which other programs here may ask."""
        start = f"/{self.pages.secret}/"
        path = self.path.partition("?")[0]
        return path.removeprefix(start) if path.startswith(start) else None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Writes nothing."""
