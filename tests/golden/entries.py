"""The entries: name -> what computes a value."""

import fnmatch
import functools

import keras

from golden import digest

SEED = 7
ENTRIES = {}


def add(name, compute, *args, **options):
    """Adds an entry.

    Args:
        name: Its name: parts between slashes, in words that no move changes.
        compute: Gives its value; see :func:`golden.digest.sha256`.
        *args: Of `compute`.
        **options: Of `compute`.
    """
    if name in ENTRIES:
        raise ValueError(f"name must be new, got {name!r}")
    ENTRIES[name] = functools.partial(compute, *args, **options)


def chosen(pattern=None):
    """Returns the names that a pattern matches."""
    return [name for name in ENTRIES if matches(name, pattern)]


def matches(name, pattern=None):
    """Whether a pattern matches a name, as a whole or as its beginning; None: any."""
    return pattern is None or name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern)


def compute(name):
    """Returns an entry's (hash, summary), whatever was computed before."""
    keras.utils.clear_session(free_memory=False)  # a collection takes half a second
    keras.utils.set_random_seed(SEED)
    value = ENTRIES[name]()
    return digest.sha256(value), digest.summary(value)
