"""Devices that time files, by their texts, as the flag `--measure_on` and settings have them.

A text is the device's kind, an address, and options: `ssh:pi@raspberrypi,python=venv/bin/python`,
`adb:4A1`, `browser,package=web/node_modules/@litertjs/core`. A comma of a value is written twice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.measure.elsewhere.timing_device import TimingDevice
from tfnas.runtime.argument_rules import near

FORMS = "ssh:USER@HOST, adb, adb:SERIAL or browser, perhaps with options such as ,timeout=60"


def timing_device(device: TimingDevice | str | None) -> TimingDevice | None:
    """Returns the device of a text; a device is returned as it is.

    Example:
        >>> timing_device("ssh:pi@raspberrypi,python=venv/bin/python").python
        'venv/bin/python'
        >>> timing_device("shh:pi@raspberrypi")
        Traceback (most recent call last):
        ValueError: measure_on must be ssh:USER@HOST, adb, adb:SERIAL or browser, perhaps with \
options such as ,timeout=60, got 'shh:pi@raspberrypi'; did you mean 'ssh'?

    Args:
        device: The text, as `str(device)` returns it, or a device. None: this machine.

    Raises:
        ValueError: The text is of another form, or an option is unknown or outside its rule.
    """
    if device is None or isinstance(device, TimingDevice):
        return device
    if not isinstance(device, str):
        raise ValueError(f"measure_on must be a text or a device, got {type(device).__name__}")
    head, *rest = (part.strip().replace("\0", ",") for part in _commas_apart(device).split(","))
    kind, _, address = head.partition(":")
    kinds = _kinds()
    record = kinds.get(kind)
    if record is None:
        raise ValueError(f"measure_on must be {FORMS}, got {device!r}{near(kind, kinds)}")
    options = dict(_option(text, record, device) for text in rest)
    if address:
        if record.address is None or record.address in options:
            raise ValueError(f"measure_on must be {FORMS}, got {device!r}")
        options[record.address] = address
    elif kind == "ssh":
        raise ValueError(f"measure_on must be {FORMS}, got {device!r}, which has no host")
    found: TimingDevice = record(**options)
    return found


def device_identity(device: TimingDevice | str | None) -> str | None:
    """Returns the text of a device without its time limit, which changes no measurement.

    A job that goes on compares it: a larger `timeout` is no other device.

    Example:
        >>> device_identity("ssh:pi@raspberrypi, timeout=60")
        'ssh:pi@raspberrypi'

    Args:
        device: The text, or a device. None: this machine, of which None is returned.

    Raises:
        ValueError: The text is of another form, or an option is unknown or outside its rule.
    """
    found: Any = timing_device(device)
    if found is None:
        return None
    fields = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
    limits = {each.name: each.default for each in fields if each.name == "timeout"}
    return str(dataclasses.replace(found, **limits) if limits else found)


def _commas_apart(text: str) -> str:
    """A text whose doubled commas, those of values, are another character."""
    return text.replace(",,", "\0")


def _kinds() -> dict[str, type[Any]]:
    """The devices by the first words of their texts; a benchmark of this machine imports none."""
    from tfnas.measure.elsewhere.adb_device import AdbDevice
    from tfnas.measure.elsewhere.browser_device import BrowserDevice
    from tfnas.measure.elsewhere.ssh_device import SshDevice

    return {each.kind: each for each in (SshDevice, AdbDevice, BrowserDevice)}


def _option(text: str, record: type[Any], device: str) -> tuple[str, Any]:
    """The name and the value of an option."""
    defaults = {each.name: each.default for each in dataclasses.fields(record)}
    name, sign, value = text.partition("=")
    if not sign or not value or name not in defaults:
        raise ValueError(
            f"measure_on {device!r} must have options name=value of {', '.join(defaults)}, "
            f"got {text!r}{near(name, defaults) if name not in defaults else ''}"
        )
    kind = {"port": int, "timeout": float}.get(name, str)
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(f"measure_on must have a number as {name}, got {value!r}") from None
