"""A search whose trials cost nothing and say in a file when they begin and end: to be killed.

Its trials wait until they are allowed to begin, so that a search never ends before its kills.
"""

import os
import pathlib
import subprocess
import time

from stub_search import Stub, search_in

import tfnas
from tfnas.nas.samplers.random_search import RandomSampler

SECONDS = 0.004  # of a trial
KINDS = {
    "evolution": ({}, {}),
    "reinforcement": (
        {"sampler": tfnas.ReinforceSampler(warmup=8, batch_size=4, children=1)},
        {},
    ),
    "halving": ({"config": {"halving": 2}}, {"epochs": 4}),
    "surrogate": (
        {"sampler": tfnas.EvolutionSampler(children=8, population_size=8, tournament_size=3)},
        {},
    ),
    "one process": ({"config": {"workers": 1}}, {}),
    "two processes": ({"config": {"workers": 2}, "sampler": RandomSampler()}, {}),
}
"""Kind of search -> its settings, and the arguments of `search`."""


class Journal:
    """What happens to the trials of a search, in a file that survives its processes.

    Args:
        folder: The folder of the search; it has the file, and one with the trials that may begin.
    """

    def __init__(self, folder):
        self.path = pathlib.Path(folder, "journal.txt")
        self.permitted = pathlib.Path(folder, "permitted.txt")

    def write(self, *words):
        """Adds a line; the system writes short ones whole, also of several processes."""
        with self.path.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def lines(self):
        """What was written, as lists of words."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line.split() for line in text.splitlines()]

    def permit(self, trials):
        """Lets this many trials begin, counted from the first one of the search."""
        part = self.permitted.with_suffix(".part")
        part.write_text(str(trials))
        part.replace(self.permitted)

    def wait(self, number):
        """Waits until a trial may begin."""
        while number >= int(self.permitted.read_text()):
            time.sleep(0.002)


class Killed(Stub):
    """Writes when its trials begin and end."""

    journal = None
    starts_processes = False  # whether a trial starts a process of its own

    def run_trial(self, trial, *args, **kwargs):
        name, number = trial.trial_id, int(trial.trial_id)
        self.journal.write("began", name, os.getpid())
        self.journal.wait(number)
        time.sleep(SECONDS)
        while self.starts_processes and not self.child_ended(name):
            pass
        values = trial.hyperparameters.values
        score = sum(value * (place + 1.37) for place, value in enumerate(values.values()))
        return {"score": float(score * kwargs.get("epochs", 1))}

    def child_ended(self, name):
        """Starts a process and waits for it; returns whether it ended by itself."""
        child = subprocess.Popen(["sleep", "0.03"])
        self.journal.write("child", name, child.pid)
        ended = child.wait() == 0
        if not ended:
            self.journal.write("killed", name, child.pid)
        return ended

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self.journal.write("ended", trial.trial_id)


def search_of(kind, folder, trials):
    """A search of a kind, which begins or goes on, and a function that runs it."""
    settings, arguments = KINDS[kind]
    config = dict(settings.get("config", {}))
    if workers := config.pop("workers", 0):
        config["executor"] = lambda: tfnas.TrialProcesses(workers)
    settings = {**settings, "config": tfnas.TunerConfig(**config)}
    search = search_in(folder, trials, Killed, **settings)
    search.starts_processes = bool(workers)
    search.journal = Journal(folder)
    search.oracle.verbose = 0
    return search, lambda: search.search(verbose=0, **arguments)
