"""Edits of state files, as a damaged disk or a hand makes them: one seed, one edit."""

import copy
import json

import numpy as np

HOSTILE = (
    *(None, True, -1, 0, 7, 1e300, float("nan"), float("inf"), 2**70, "", "x", "RUNNING"),
    *("../../../outside", "/tmp/outside", "trial_99", [], {}, [[]], [None], {"a": {}}, "é\u0000"),
)


def nodes(value, path=()):
    """Yields the path of each node of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from nodes(item, (*path, key))


def replaced(value, path, new):
    """A copy with another node; without it if `new` is `...`."""
    if not path:
        return new
    found = copy.deepcopy(value)
    parent = found
    for key in path[:-1]:
        parent = parent[key]
    if new is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return found


def nested(levels):
    return "[" * levels + "]" * levels


def edited(content, seed):
    """Returns the bytes of an edited JSON file.

    Args:
        content: The bytes of the file.
        seed: Seed of the edit.
    """
    rng = np.random.default_rng(seed)
    value = json.loads(content)
    paths = [path for path in nodes(value) if path]
    path = paths[rng.integers(len(paths))]
    kind = rng.integers(10)
    if kind == 0:
        return content[: rng.integers(len(content))]
    if kind == 1:
        place = rng.integers(len(content))
        return content[:place] + bytes([rng.integers(256)]) + content[place + 1 :]
    if kind in (2, 3):
        marked = json.dumps(replaced(value, path, "DEEP"))
        return marked.replace('"DEEP"', nested((80, 100_000)[kind - 2]), 1).encode()
    if kind == 4:
        return json.dumps(replaced(value, path, ...)).encode()
    hostile = HOSTILE[rng.integers(len(HOSTILE))]
    return json.dumps(replaced(value, path, hostile)).encode()
