"""What a search says where Ctrl-C stops it."""

from __future__ import annotations

STOPPING = "stopping: the best so far is written; Ctrl-C again stops without it"
STOPPING_EARLY = "stopping: no trial has ended well yet"


def interrupted_early() -> KeyboardInterrupt:
    """Returns the error of a search that Ctrl-C stopped before a trial ended well."""
    return KeyboardInterrupt("no trial has ended well yet; the same call goes on from here")
