"""Runs the docstring example of every exported name: `python tests/examples.py [NAME...]`.

Each runs in a folder of its own, with the tfnas that Python finds. Ends with 1 where one fails.
"""

import contextlib
import doctest
import inspect
import os
import sys
import tempfile
import time
import types

import tfnas


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples of an exported name; of a class or module those of its public parts too."""
    value = getattr(tfnas, name)
    if not isinstance(value, types.ModuleType):
        return [found for found in doctest.DocTestFinder().find(value, name) if found.examples]
    parts = {part: getattr(value, part) for part in getattr(value, "__all__", vars(value))}
    tests = doctest.DocTestFinder(recurse=False).find(value, name)
    for part, member in parts.items():
        if callable(member) and not part.startswith("_") and _is_of(member, value):
            tests += doctest.DocTestFinder().find(member, f"{name}.{part}")
    return [found for found in tests if found.examples]


def _is_of(member: object, module: types.ModuleType) -> bool:
    home = inspect.getmodule(member)
    return home is not None and f"{home.__name__}.".startswith(f"{module.__name__}.")


def run(test: doctest.DocTest) -> bool:
    """Runs an example in an empty folder; tells its time, and how it failed."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed
    print(
        f"{test.name}: {'FAILED' if failed else 'ok'}, {time.monotonic() - start:.1f} s", flush=True
    )
    return not failed


def main(names: list[str]) -> int:
    """Runs the examples of some exported names, of all where none is given."""
    tests = [test for name in names or tfnas.__all__ for test in examples_of(name)]
    failed = [test.name for test in tests if not run(test)]
    where = os.path.dirname(tfnas.__file__)
    print(f"{len(tests) - len(failed)} passed, {len(failed)} failed, of tfnas in {where}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
