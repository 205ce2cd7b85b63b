"""Walks through a plan of `compress`, for the tests of it."""


def walked(steps, outcome):
    """Returns the names of the recipes that are tried where `outcome(recipe)` comes of each."""
    names, made = [], None
    while True:
        try:
            recipe = steps.send(made)
        except StopIteration:
            return names
        names.append(str(recipe))
        assert recipe.why
        made = outcome(recipe)
