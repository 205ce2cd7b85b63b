"""A search whose trials cost nothing, as a program: what attacks on a process attack.

    python tests/attacks/stub_search.py FOLDER TRIALS [--greedy]

prints its trials as JSON into FOLDER/trials.json.
"""

import json
import pathlib
import sys

import keras_tuner

import tfnas

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def hyperparameters():
    """A space of ten decisions."""
    space = keras_tuner.HyperParameters()
    for number in range(10):
        space.Choice(f"h{number}", list(range(4)))
    return space


class Stub(tfnas.EvolutionTuner):
    """Its trials add up their values."""

    greedy = False  # whether each fourth trial asks for more memory than there is

    def run_trial(self, trial, *args, **kwargs):
        values = trial.hyperparameters.values.values()
        if self.greedy and int(trial.trial_id) % 4 == 3:
            bytearray(2**45)
        return {"score": float(sum(values))}


def search_in(folder, trials, kind=Stub, sampler=None, **settings):
    """A search that begins, or goes on; by evolution without a surrogate unless said otherwise."""
    evolution = tfnas.EvolutionSampler(children=1, population_size=8, tournament_size=3)
    return kind(
        None,
        keras_tuner.Objective("score", "max"),
        max_trials=trials,
        seed=1,
        sampler=sampler or evolution,
        directory=folder,
        project_name="search",
        hyperparameters=hyperparameters(),
        tune_new_entries=False,
        **settings,
    )


def outcomes(search):
    """Each trial by its name: status, values, score."""
    return {
        name: [trial.status, trial.hyperparameters.values, trial.score]
        for name, trial in search.oracle.trials.items()
    }


def main(folder, trials, *options):
    search = search_in(folder, int(trials))
    search.greedy = "--greedy" in options
    search.search(verbose=1)
    text = json.dumps(outcomes(search))
    pathlib.Path(folder, "trials.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
