"""The worker process behind :class:`tfnas.runtime.worker_processes.TrialProcesses`."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

import cloudpickle


def main() -> None:
    """Runs the calls that arrive by the pipe, until it is closed."""
    connection = Connection(int(sys.argv[1]))
    os.chdir(sys.argv[2])
    while True:
        try:
            payload = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            function, args, kwargs = cloudpickle.loads(payload)
            answer = cloudpickle.dumps((True, function(*args, **kwargs)))
        except BaseException as error:
            try:
                answer = cloudpickle.dumps((False, error))
            except Exception:  # the error does not pickle: send its text
                answer = cloudpickle.dumps(
                    (False, RuntimeError(f"{type(error).__name__}: {error}"))
                )
        connection.send_bytes(answer)


if __name__ == "__main__":
    main()
