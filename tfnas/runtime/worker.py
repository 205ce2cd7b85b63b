"""The worker process behind :class:`tfnas.runtime.worker_processes.TrialProcesses`."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

import cloudpickle


def main() -> None:
    """Answers calls from the pipe until it ends."""
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
            except Exception:  # an error that does not pickle is told in words
                answer = cloudpickle.dumps(
                    (False, RuntimeError(f"{type(error).__name__}: {error}"))
                )
        connection.send_bytes(answer)


if __name__ == "__main__":
    main()
