"""Cases of a parametrization that the fast tests leave out (docs/decisions/0085)."""

import pytest


def slow_but(cases, *fast):
    """Marks all cases as slow but those that stand for them; a tuple holds several arguments."""
    unknown = [case for case in fast if case not in cases]
    assert not unknown, f"fast must be of the cases, got {unknown}"
    return [case if case in fast else _slow(case) for case in cases]


def _slow(case):
    if hasattr(case, "marks"):  # a pytest.param with marks of its own
        return case
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
