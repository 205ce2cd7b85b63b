"""The loop of a :class:`tfnas.runtime.child_process.ChildProcess`: it runs in that process.

A message is a header (`HEADER`: the number of the call, the kind of message, the length of what
follows) and bytes. Whatever a call does, no message of another number than its own answers it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading

import cloudpickle

HEADER = struct.Struct("!QBQ")
CALL, BEGAN, RETURNED, RAISED = range(4)  # kinds of messages
_CHUNK = 2**20  # bytes


def serve(connection: int, life: int, folder: str) -> None:
    """Runs the calls that arrive, until the parent closes the connection or ends.

    Args:
        connection: Descriptor of a socket.
        life: Descriptor of a pipe whose other end only the parent has: it ends with the parent.
        folder: The current folder of the calls.
    """
    for descriptor in (connection, life):
        os.set_inheritable(descriptor, False)
    _end_with_parent(life)
    os.chdir(folder)
    own_id, messages = os.getpid(), socket.socket(fileno=connection)
    # Else a process that a call has forked would keep the connection open after our death.
    os.register_at_fork(after_in_child=messages.close)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, _, size = HEADER.unpack(_read(messages, HEADER.size))
            kind, answer = _run(messages, number, _read(messages, size))
            if os.getpid() != own_id:  # a process that the call has forked came back from it
                signal.raise_signal(signal.SIGKILL)
            _send(messages, number, kind, answer)


def _run(messages: socket.socket, number: int, payload: bytes) -> tuple[int, bytes]:
    """Runs a pickled call; returns the kind of its answer, and the answer."""
    try:
        function, args, kwargs = cloudpickle.loads(payload)
        _send(messages, number, BEGAN)  # from now on its time counts: all is imported
        return RETURNED, cloudpickle.dumps(function(*args, **kwargs))
    except BaseException as error:
        try:
            return RAISED, cloudpickle.dumps(error)
        except Exception:  # the error does not pickle: send its text
            text = f"{type(error).__name__}: {error}"
            return RAISED, cloudpickle.dumps(RuntimeError(text))


def _send(messages: socket.socket, number: int, kind: int, content: bytes = b"") -> None:
    messages.sendall(HEADER.pack(number, kind, len(content)))
    messages.sendall(content)


def _read(messages: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        chunk = messages.recv(min(count - len(found), _CHUNK))
        if not chunk:
            raise EOFError
        found += chunk
    return bytes(found)


def _end_with_parent(life: int) -> None:
    """Has this process and its children, which form a process group, killed with the parent.

    On Linux the kernel does that when the pipe's other end is closed, also while native code holds
    the interpreter lock. Elsewhere a thread does.
    """
    import fcntl  # Windows has none, and imports this module for its constants

    set_signal = getattr(fcntl, "F_SETSIG", None)
    if set_signal is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(life, set_signal, signal.SIGKILL)
            flags = fcntl.fcntl(life, fcntl.F_GETFL)
            fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC)

    def wait() -> None:
        os.read(life, 1)  # nothing is ever written: it returns at the end
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
