"""A search of many trials that cost nothing: it must not grow in memory, descriptors or threads."""

import contextlib
import gc
import io
import os
import pathlib
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stub_search import Stub, search_in

# A trial's own record stays in memory, about 10 KB with its hyperparameters.
BYTES_PER_TRIAL = 40_000


def resident_bytes():
    """Bytes of this process in memory, as Linux counts them."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Counted(Stub):
    """Counts what the process holds at two trials: when all is warm, and at the end."""

    at = (50, 100)

    def run_trial(self, trial, *args, **kwargs):
        number = int(trial.trial_id) + 1
        if number in self.at:
            gc.collect()
            self.counts = [*getattr(self, "counts", ()), self.count()]
        return super().run_trial(trial, *args, **kwargs)

    def count(self):
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "bytes": resident_bytes(),
        }


def attack(trials):
    """Runs a search, and returns what grew in its second half.

    Args:
        trials: How many.

    Returns:
        Name -> growth between the middle and the last trial.
    """
    with tempfile.TemporaryDirectory() as folder:
        search = search_in(folder, trials, Counted)
        search.at = (trials // 2, trials)
        with contextlib.redirect_stdout(io.StringIO()):
            search.search(verbose=0)
        middle, last = search.counts
        assert len(search.oracle.trials) == trials
    return {name: last[name] - middle[name] for name in middle}


def faults(growth, trials):
    """What grew more than it may."""
    found = [name for name in ("descriptors", "threads") if growth[name] > 0]
    return found + ["bytes"] * (growth["bytes"] > BYTES_PER_TRIAL * trials / 2)


if __name__ == "__main__":
    print(attack(int(sys.argv[1])))
