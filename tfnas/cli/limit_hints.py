"""What to write instead of a limit of another command: of `compress` in `search`, or reversed."""

from __future__ import annotations

import re

from absl import flags

from tfnas.nas.metric_directions import KNOWN_DIRECTIONS

_OTHERWISE = {  # limits of `tfnas compress` whose metric has another name in `tfnas search`
    "max_bytes": "size_bytes",
    "max_memory": "peak_activation_bytes",
    "quality_limit": "file_accuracy",
    "min_delegated_macs": "delegated_macs",
}
_METRICS = {**{f"max_{name}": name for name in KNOWN_DIRECTIONS}, **_OTHERWISE}
_NOT_OF_THE_ORIGINAL = {  # limits that are fractions of the original's cost, which a search lacks
    "max_macs": "multiply-accumulates, no fraction",
    "max_latency_ratio": "a ratio to the reference model",
}
_LIMIT = re.compile(r"(\w+)\s*[<>]?=(.+)")


def limit_hint(name: str, value: str, values: flags.FlagValues) -> str:
    """Returns the flag of a command for a limit that it has in another form; "": there is none.

    Args:
        name: A flag that the command does not have.
        value: Its value, or "".
        values: The flags of the command.
    """
    metric = _METRICS.get(name, name)
    if "limit" in values and metric in KNOWN_DIRECTIONS:
        if unit := _NOT_OF_THE_ORIGINAL.get(name):
            return f"; did you mean --limit={metric}=NUMBER ({unit})?"
        return f"; did you mean --limit={metric}={value or 'NUMBER'}?"
    if "max_bytes" not in values:
        return ""
    limit = _LIMIT.fullmatch(value) if name in ("limit", "limits") else None
    metric, value = limit.groups() if limit else (name, value)
    wanted = [each for each, of in _METRICS.items() if of == metric and each in values]
    if not wanted:
        return ""
    unit = _NOT_OF_THE_ORIGINAL.get(wanted[0])
    shown = "NUMBER (a fraction of the original's)" if unit else value or "NUMBER"
    return f"; did you mean --{wanted[0]}={shown}?"
