"""The folder of a search: what a search may write over, resume and remove."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable

from tfnas.measure.elsewhere.named_device import device_identity
from tfnas.measure.latency import provenance
from tfnas.nas.search_config import SearchConfig
from tfnas.quantization.spec import MODES
from tfnas.runtime.files import write_atomically
from tfnas.runtime.folder_lock import NAME
from tfnas.runtime.store import damage_named, read_json_object

RESULTS = (
    *("best.keras", "pareto.csv", "pareto.png", "results.json", "report.md", "report.html"),
    "trials.jsonl",
    *(f"best_{mode}.tflite" for mode in MODES),
)
_KEY = "[0-9a-f]" * 16  # of an architecture
_MAY_CHANGE = ("workers", "trial_timeout")  # settings that may change when a search resumes


def check_is_free(directory: pathlib.Path) -> None:
    """Checks that a search in a folder would write over no files but those of a search.

    Args:
        directory: The folder, which need not exist.

    Raises:
        ValueError: It is a file, or holds files of the names of a search, but no search.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"directory must be a folder, got {str(directory)!r}, which is a file")
    if _is_search(directory):
        return
    found = [n for n in ("config.json", *RESULTS, "final") if (directory / n).exists()]
    # A tuner that refused its settings left an empty folder.
    trials = directory / "search"
    if trials.is_file() or any(p.is_file() and p.name != NAME for p in trials.rglob("*")):
        found.append("search")
    if found:
        raise ValueError(
            "directory must be a folder where a search writes over no other files, got "
            f"{str(directory)!r}, which holds {', '.join(found)} of something else"
        )


def check(directory: pathlib.Path, config: SearchConfig, overwrite: bool) -> bool:
    """Checks that a search may begin, go on or be opened in a folder.

    Args:
        directory: The folder, which need not exist.
        config: The settings.
        overwrite: Whether the files of an earlier search in it are removed.

    Returns:
        Whether files can be written into the folder.

    Raises:
        ValueError: It holds files of something else or another search, or it can't be written
            and its search has not ended or should be removed.
    """
    check_is_free(directory)
    writes = _is_writable(directory)
    if not writes:
        _check_has_ended(directory, overwrite)
    if not overwrite:
        check_same_search(directory, config)
    return writes


def begin(
    directory: pathlib.Path, config: SearchConfig, *, overwrite: bool, writes: bool, ended: bool
) -> pathlib.Path | None:
    """Writes the settings of a search into a folder that :func:`check` accepts.

    Args:
        directory: The folder.
        config: The settings.
        overwrite: Whether the files of an earlier search in it are removed.
        writes: Whether files can be written into the folder.
        ended: Whether all trials have ended; of no meaning where files can be written.

    Returns:
        The file of the trials' lines; None where nothing can be written.

    Raises:
        ValueError: The folder can't be written, and trials are left to run.
    """
    if overwrite:
        remove_results(directory)
    if not writes:
        if not ended:
            raise not_writable(directory, "trials are left to run")
        return None
    record = {"config": dataclasses.asdict(config), "provenance": provenance()}
    write_atomically(directory / "config.json", json.dumps(record, indent=2))
    return directory / "trials.jsonl"


def _is_writable(directory: pathlib.Path) -> bool:
    """Whether files can be written into a folder; one that is missing can be created."""
    return not directory.is_dir() or os.access(directory, os.W_OK)


def _check_has_ended(directory: pathlib.Path, overwrite: bool) -> None:
    """Checks that a folder that can't be written holds a search that has ended."""
    path = directory / "results.json"
    if overwrite:
        raise not_writable(directory, "overwrite removes files")
    if not path.exists():
        raise not_writable(directory, "it holds no search that has ended")
    if read_json_object(path, "search").get("interrupted") is not False:
        raise not_writable(directory, "its search was interrupted")


def not_writable(directory: pathlib.Path, reason: str) -> ValueError:
    """Returns the error of a folder that can't be written but must be.

    Args:
        directory: The folder.
        reason: Why it must.
    """
    return ValueError(
        f"directory must be a folder that can be written, got {str(directory)!r}, which can't: "
        f"{reason}"
    )


def marker_of(directory: pathlib.Path, key: str) -> pathlib.Path:
    """Returns the file that says of which network the final files are.

    Args:
        directory: The folder of the search.
        key: Key of the architecture.
    """
    return directory / "final" / f"{key}.best"


def final_files(
    directory: pathlib.Path, key: str, modes: Iterable[str]
) -> dict[str, pathlib.Path] | None:
    """Returns the final files of a network by mode; None where one is missing.

    Args:
        directory: The folder of the search.
        key: Key of the architecture.
        modes: Modes of the files.
    """
    files = {mode: directory / f"best_{mode}.tflite" for mode in modes}
    written = marker_of(directory, key).exists() and all(path.exists() for path in files.values())
    return files if written else None


def forget_final(directory: pathlib.Path, writes: bool, key: str) -> None:
    """Removes the markers of final files, as those of an earlier best are about to be replaced.

    Args:
        directory: The folder of the search.
        writes: Whether it can be written.
        key: Key of the best architecture.

    Raises:
        ValueError: The folder can't be written.
    """
    if not writes:
        raise not_writable(directory, f"files of {key} are missing")
    for stale in (directory / "final").glob("*.best"):
        stale.unlink()


def check_same_search(directory: pathlib.Path, config: SearchConfig) -> None:
    """Checks that a folder holds no search with other settings.

    Args:
        directory: The folder, which need not exist.
        config: The settings.

    Raises:
        ValueError: It does.
    """
    path = directory / "config.json"
    if not path.exists():
        return
    with damage_named(path, "search"):
        kept = read_json_object(path, "search").get("config", {})
        if not isinstance(kept, dict):
            raise ValueError(f"config must be a JSON object, got {type(kept).__name__}")
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    with damage_named(path, "search"):
        for each in (kept, settings):
            each["measure_on"] = device_identity(each.get("measure_on"))
    # A search of an earlier version has no value for settings that were added since.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    differ = [
        name
        for name, value in settings.items()
        if kept.get(name, defaults[name]) != value and name not in _MAY_CHANGE
    ]
    before = kept.get("max_trials")
    if "max_trials" in differ and isinstance(before, int) and settings["max_trials"] > before:
        differ.remove("max_trials")  # more trials resume the search
    if differ:
        raise ValueError(
            f"directory {str(directory)!r} holds a search with another {', '.join(differ)}: "
            "choose another folder, or --overwrite (overwrite=True) to start a new search"
        )


def remove_results(directory: pathlib.Path) -> None:
    """Removes the files of an earlier search, and nothing else.

    Args:
        directory: A folder that :func:`check_is_free` accepts.
    """
    for name in RESULTS:
        (directory / name).unlink(missing_ok=True)
    for kind in ("tflite", "best"):
        for path in directory.glob(f"final/{_KEY}.{kind}"):
            path.unlink()


def _is_search(directory: pathlib.Path) -> bool:
    try:
        config = read_json_object(directory / "config.json", "search").get("config")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "dataset" in config
