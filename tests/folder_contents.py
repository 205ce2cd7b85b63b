"""What a folder holds: for tests of what a call changes, or leaves alone."""

import pathlib


def contents(folder):
    """Bytes and time of change of all files and folders."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(pathlib.Path(folder).rglob("*"))
    }
