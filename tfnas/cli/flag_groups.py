"""The headings under which the help of a command lists its flags."""

from __future__ import annotations

import dataclasses

from absl import flags

from tfnas.compression.budget import Budget

SETTINGS = "Settings"
LIMITS = "Limits (at least one)"
TRAINING = "Training"
_LIMITS = tuple(field.name for field in dataclasses.fields(Budget))
# In the order of the help; flags that are not listed are settings of the command.
_GROUPS: dict[str, tuple[str, ...]] = {
    LIMITS: _LIMITS,
    SETTINGS: (),
    "What is searched": ("hypermodel", "preset", "compression", "teacher"),
    "Search": (
        *("algorithm", "max_trials", "objectives", "objective", "limit", "patch_macs_ratio"),
        *("target_latency_ms", "target_latency_ratio", "latency_exponent"),
        *("population_size", "tournament_size", "children", "form", "inherit"),
        *("halving", "min_epochs"),
    ),
    "Search with shared weights (--algorithm=supernet)": (
        *("supernet_epochs", "supernet_seconds", "evaluations", "rank_networks"),
    ),
    "Data": (
        *("data", "dataset", "part", "inputs", "targets", "groups", "image_size"),
        "include_rescaling",
        *("augment", "train_limit"),
    ),
    TRAINING: (
        *("epochs", "final_epochs", "batch_size", "learning_rate", "distill", "loss", "metric"),
        *("seed", "deterministic"),
    ),
    "Measurement": (
        *("rounds", "threads", "xnnpack", "latency_seconds", "measure_on", "throughput"),
        *("batch_sizes", "thread_counts", "baseline", "random_candidates"),
    ),
    "Device": (
        *("fit_for", "accelerator", "runtime_flash", "runtime_ram", "vela", "adb", "adb_binary"),
        "serial",
    ),
    "Model file": ("import", "safe_mode", "signature"),
    "Processes": ("workers", "trial_timeout"),
    "Results": (
        *("directory", "resume", "overwrite", "output", "c", "saved_model", "errors", "json"),
        *("quiet", "verbose"),
    ),
}


def grouped(values: flags.FlagValues) -> dict[str, list[flags.Flag[object]]]:
    """Returns heading -> flags, in the order of the help.

    Args:
        values: The flags of a command.
    """
    # Only `compress` has the limit on the quality; a flag of another may have a limit's name.
    left_out = set() if "max_drop" in values else {LIMITS}
    if not {"epochs", "loss"} & set(values):
        left_out.add(TRAINING)  # a seed or a size of batches is a setting there
    groups = {title: names for title, names in _GROUPS.items() if title not in left_out}
    known = {name for names in groups.values() for name in names}
    own = [name for each in values.flags_by_module_dict().values() for name in _names(each)]
    groups[SETTINGS] = tuple(name for name in own if name not in known)
    found = {
        title: [values[name] for name in names if name in values] for title, names in groups.items()
    }
    return {title: each for title, each in found.items() if each}


def _names(found: list[flags.Flag[object]]) -> list[str]:
    return [flag.name for flag in found]
