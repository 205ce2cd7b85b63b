"""Arguments of a tuner from one flat list of settings, so that a test names only what it varies."""

import dataclasses

import tfnas
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.variation import GroupCrossover
from tfnas.nas.successive_halving import Halving


def arranged(sampler, settings):
    """Returns arguments of a tuner: each setting in the record that has it as a field.

    Args:
        sampler: The class of the sampler.
        settings: Settings by name; what no record has stays an argument of the tuner. Only
            records that a setting belongs to are created.
    """
    rest = dict(settings)
    records = {"sampler": sampler, "config": tfnas.TunerConfig, "device": tfnas.Device}
    found = {}
    for argument, kind in records.items():
        known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        own = {field.name: rest.pop(field.name) for field in known if field.name in rest}
        if own.get("crossover") is not None:
            own["crossover"] = GroupCrossover(own["crossover"])
        if own:
            found[argument] = kind(**own)
    return {**rest, **found}


def oracle_of(sampler, *arguments, halving=None, min_epochs=1, **settings):
    """Returns an oracle of a flat list of settings."""
    found = arranged(sampler, settings)
    found.setdefault("sampler", sampler())
    return SpaceOracle(
        found.pop("sampler"), *arguments, halving=Halving(halving, min_epochs), **found
    )
