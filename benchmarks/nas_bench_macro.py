"""Search algorithms on NAS-Bench-Macro: what they find after so many evaluations.

    python benchmarks/nas_bench_macro.py [--seeds=200] [--algorithms=...] [--peers]

6,561 networks of eight MobileNetV2 blocks, each trained on CIFAR-10 three times (Su et al.,
CVPR 2021). A search gets the accuracy of one of the three runs, drawn at random; what
counts is the mean accuracy of the network that it picks. Ours run through their oracles
as in any search; proposals come from the algorithm's own operators, and with --children=1 no
surrogate chooses among them. Peers: keras_tuner's RandomSearch and BayesianOptimization
oracles, Optuna's TPE.

With --pareto the same data has two objectives (accuracy, FLOPs): hypervolume in per cent
of the entire space's front, beside Optuna's NSGA-II and pymoo's.

Settings were chosen on seeds from 1000 on; seeds from 0 on are reported.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras_tuner as kt
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.reinforce import ReinforceSampler
from tfnas.search_space.hyperparameters import HyperParameterSpace
from tfnas.table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = flags.DEFINE_string(
    "data", str(ROOT.parent / "shared/data/nas-bench-macro_cifar10.json"), "the benchmark's file"
)
SEEDS = flags.DEFINE_integer("seeds", 200, "number of seeds")
FIRST = flags.DEFINE_integer("first", 0, "the first seed")
MARKS = flags.DEFINE_list("marks", ["50", "100", "200", "400"], "evaluations reported")
CHOSEN = flags.DEFINE_list("algorithms", [], "some of the names; none: all of ours")
PEERS = flags.DEFINE_bool("peers", False, "keras_tuner and Optuna too (slow)")
PARETO = flags.DEFINE_bool("pareto", False, "two objectives instead of one")
LAYERS = 8


def main(argv: list[str]) -> None:
    bench = Bench(json.loads(pathlib.Path(DATA.value).read_text()))
    known = {**OURS, **(PEERS_OF_TWO if PARETO.value else PEERS_OF_ONE)}
    names = CHOSEN.value or [n for n in known if PEERS.value or n in OURS]
    marks = [int(mark) for mark in MARKS.value]
    rows = []
    for name in names:
        begin = time.monotonic()
        found = [known[name](bench, FIRST.value + seed, max(marks)) for seed in range(SEEDS.value)]
        scores = [[bench.worth(run, mark) for mark in marks] for run in found]
        means, errors = np.mean(scores, 0), np.std(scores, 0) / len(scores) ** 0.5
        cells = [f"{m:.3f} +- {e:.3f}" for m, e in zip(means, errors, strict=True)]
        rows.append([name, *cells, f"{(time.monotonic() - begin) / len(found):.1f} s"])
        print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    what = "hypervolume, % of the front's" if PARETO.value else "mean accuracy of the pick, %"
    print(f"{what} after so many evaluations, mean and standard error over {SEEDS.value} seeds")
    headers = ["algorithm", *(str(mark) for mark in marks), "a run"]
    print(table(headers, rows))
    note = f"{what} after so many evaluations, mean and standard error, {SEEDS.value} seeds."
    found = record.table_rows(headers, rows)
    record.write("nas_bench_macro", found, seed=FIRST.value, notes=[note.capitalize()])


class Bench:
    """The table of networks."""

    def __init__(self, networks: dict[str, Any]) -> None:
        self.accuracies = {key: net["test_acc"] for key, net in networks.items()}
        self.means = {key: net["mean_acc"] for key, net in networks.items()}
        self.flops = {key: net["flops"] / 1e6 for key, net in networks.items()}
        self.corner = (min(self.means.values()), max(self.flops.values()))
        rows = [(self.means[key], self.flops[key]) for key in networks]
        # Of each cost the best, so that the front of thousands is quick to find.
        rows.sort(key=lambda row: (row[1], -row[0]))
        front: list[tuple[float, float]] = []
        for row in rows:
            if not front or row[0] > front[-1][0]:
                front.append(row)
        self.best_hypervolume = tfnas.hypervolume(front, self.corner, ["max", "min"])

    def evaluate(self, key: str, noise: np.random.Generator) -> dict[str, float]:
        """Returns a noisy accuracy and the FLOPs of a network."""
        return {"accuracy": self.accuracies[key][noise.integers(3)], "flops": self.flops[key]}

    def worth(self, run: Run, mark: int) -> float:
        """What a run had after so many evaluations."""
        if PARETO.value:
            rows = [(self.means[key], self.flops[key]) for key in dict.fromkeys(run.tried[:mark])]
            found = tfnas.hypervolume(rows, self.corner, ["max", "min"])
            return 100 * found / self.best_hypervolume
        return self.means[run.picks[mark]]


class Run:
    """What a search tried, and what it would have picked.

    Args:
        picks: Evaluations -> the network that it would have picked then.
        tried: The networks in their order.
    """

    def __init__(self, picks: dict[int, str], tried: list[str]) -> None:
        self.picks, self.tried = picks, tried


def objectives() -> Any:
    first = kt.Objective("accuracy", "max")
    return [first, kt.Objective("flops", "min")] if PARETO.value else first


def hyperparameters() -> kt.HyperParameters:
    hp = kt.HyperParameters()
    for layer in range(LAYERS):
        hp.Choice(f"layer{layer}", ["0", "1", "2"])
    return hp


def noise_of(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 7])


def searched(make: Callable[[int, int], Any]) -> Callable[[Bench, int, int], Run]:
    """A search by one of tfnas' oracles, without its files."""

    def run(bench: Bench, seed: int, evaluations: int) -> Run:
        oracle = make(seed, evaluations)
        oracle.verbose = 0
        oracle._set_project_dir(tempfile.gettempdir(), "nas_bench_macro")
        oracle._save_trial = oracle.save = lambda *_: None  # what is compared is the choice
        noise, tried, picks = noise_of(seed), [], {}
        marks = {int(mark) for mark in MARKS.value}
        for count in range(1, evaluations + 1):
            trial = oracle.create_trial("tuner0")
            key = key_of(trial)
            tried.append(key)
            oracle.update_trial(trial.trial_id, bench.evaluate(key, noise))
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
            if count in marks and not PARETO.value:
                pick = getattr(oracle, "pick", lambda: oracle.get_best_trials(1)[0])
                picks[count] = key_of(pick())
        return Run(picks, tried)

    return run


def key_of(trial: Any) -> str:
    return "".join(trial.hyperparameters.values[f"layer{layer}"] for layer in range(LAYERS))


def common(seed: int, evaluations: int) -> dict[str, Any]:
    return {
        "space": HyperParameterSpace(hyperparameters().space),
        "objective": objectives(),
        "max_trials": evaluations,
        "seed": seed,
        "hyperparameters": hyperparameters(),
    }


def evolution(**settings: Any) -> Callable[[Bench, int, int], Run]:
    sampler = EvolutionSampler(**settings)
    return searched(lambda seed, count: SpaceOracle(sampler, **common(seed, count)))


def reinforce(**settings: Any) -> Callable[[Bench, int, int], Run]:
    sampler = ReinforceSampler(**settings)
    return searched(lambda seed, count: SpaceOracle(sampler, **common(seed, count)))


def best_measured(measured: list[tuple[str, float]], marks: set[int]) -> dict[int, str]:
    return {mark: max(measured[:mark], key=lambda pair: pair[1])[0] for mark in marks}


def keras_tuner_oracle(kind: str) -> Callable[[Bench, int, int], Run]:
    def run(bench: Bench, seed: int, evaluations: int) -> Run:
        module = getattr(kt.oracles, kind)
        oracle = module(
            objective=kt.Objective("accuracy", "max"),
            max_trials=evaluations,
            seed=seed + 1,  # 0 means "none" there
            hyperparameters=hyperparameters(),
        )
        oracle.verbose = 0
        oracle._save_trial = oracle.save = lambda *_: None
        noise, measured = noise_of(seed), []
        for _ in range(evaluations):
            trial = oracle.create_trial("tuner0")
            if trial.status != "RUNNING":
                break
            key = key_of(trial)
            measured.append((key, bench.evaluate(key, noise)["accuracy"]))
            oracle.update_trial(trial.trial_id, {"accuracy": measured[-1][1]})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        return Run(
            best_measured(measured, {int(m) for m in MARKS.value}), [key for key, _ in measured]
        )

    return run


def optuna_sampler(kind: str) -> Callable[[Bench, int, int], Run]:
    def run(bench: Bench, seed: int, evaluations: int) -> Run:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        noise, measured = noise_of(seed), []

        def evaluate(trial: Any) -> Any:
            choices = [trial.suggest_categorical(f"l{i}", ["0", "1", "2"]) for i in range(LAYERS)]
            key = "".join(choices)
            result = bench.evaluate(key, noise)
            measured.append((key, result["accuracy"]))
            return (result["accuracy"], result["flops"]) if PARETO.value else result["accuracy"]

        sampler = getattr(optuna.samplers, kind)(seed=seed)
        directions = ["maximize", "minimize"] if PARETO.value else ["maximize"]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.optimize(evaluate, n_trials=evaluations)
        return Run(
            best_measured(measured, {int(m) for m in MARKS.value}), [key for key, _ in measured]
        )

    return run


def pymoo_nsga2(bench: Bench, seed: int, evaluations: int) -> Run:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    noise, tried = noise_of(seed), []

    class Networks(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=LAYERS, n_obj=2, xl=0, xu=2, vtype=int)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            key = "".join(str(int(value)) for value in x)
            result = bench.evaluate(key, noise)
            tried.append(key)
            out["F"] = [-result["accuracy"], result["flops"]]

    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=UX(),
        mutation=uniform_mutation(np.random.default_rng(seed)),
        eliminate_duplicates=True,
    )
    minimize(Networks(), algorithm, ("n_eval", evaluations), seed=seed)
    return Run({}, tried)


def uniform_mutation(rng: np.random.Generator) -> Any:
    from pymoo.core.mutation import Mutation

    class Uniform(Mutation):  # type: ignore[misc]
        """Each variable anew with the chance 1 / their number."""

        def _do(self, problem: Any, x: Any, **kwargs: Any) -> Any:
            x = np.array(x)
            anew = rng.random(x.shape) < 1.0 / x.shape[1]
            return np.where(anew, rng.integers(0, 3, x.shape), x)

    return Uniform()


OURS: dict[str, Callable[[Bench, int, int], Run]] = {
    "random": searched(lambda seed, count: SpaceOracle(RandomSampler(), **common(seed, count))),
    "evolution": evolution(),
    "evolution without surrogate": evolution(children=1),
    "reinforce building": reinforce(),
    "reinforce modifying": reinforce(form="modifying"),
    "PPO building": reinforce(clip=0.2),
    "reinforce building without surrogate": reinforce(children=1),
    "reinforce modifying without surrogate": reinforce(form="modifying", children=1),
}
PEERS_OF_ONE: dict[str, Callable[[Bench, int, int], Run]] = {
    "keras_tuner BayesianOptimization": keras_tuner_oracle("BayesianOptimizationOracle"),
    "keras_tuner RandomSearch": keras_tuner_oracle("RandomSearchOracle"),
    "Optuna TPE": optuna_sampler("TPESampler"),
}
PEERS_OF_TWO: dict[str, Callable[[Bench, int, int], Run]] = {
    "Optuna NSGA-II": optuna_sampler("NSGAIISampler"),
    "pymoo NSGA-II": pymoo_nsga2,
}


if __name__ == "__main__":
    app.run(main)
