"""Searches that are killed again and again, some twice in one trial: the same as the undisturbed.

    python tests/attacks/killed_searches.py FOLDER KIND,KIND,... TRIALS KILLS

TensorFlow is imported once: the searches run in forks of this program. Prints the counts and the
faults of each kind as JSON.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import process_tree  # noqa: E402
from killed_stub import Journal, search_of  # noqa: E402
from stub_search import outcomes  # noqa: E402

AMPLE = 300  # seconds: for a process that starts on a busy machine


class Victim:
    """A search in a process, which can be killed.

    Args:
        kind: A key of `KINDS`.
        folder: The folder of the search.
        trials: Its number of trials.
    """

    def __init__(self, kind, folder, trials):
        self.kind, self.folder, self.trials = kind, pathlib.Path(folder), trials
        self.journal, self.pid = Journal(folder), None

    def start(self):
        """Starts the search, or lets it go on."""
        self.pid = os.fork()
        if self.pid:
            return
        try:
            with open(self.folder / "output.txt", "a") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            search_of(self.kind, self.folder, self.trials)[1]()
            os._exit(0)
        except BaseException:
            (self.folder / "error.txt").write_text(traceback.format_exc())
            os._exit(1)

    def end(self):
        """Waits until it has ended by itself; returns its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self):
        """Kills the process of the search; returns what should have ended with it and did not."""
        below = process_tree.descendants(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        status = self.end()
        if status != -signal.SIGKILL:
            raise RuntimeError(f"ended with {status}: {self.error()}")
        return process_tree.outlived(below)

    def has_ended(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def error(self):
        path = self.folder / "error.txt"
        return path.read_text()[-2000:] if path.exists() else "no error"

    def wait_for(self, condition):
        """Waits for something to be true; returns what was found."""
        deadline = time.monotonic() + AMPLE
        while not (found := condition()):
            if self.has_ended():
                raise RuntimeError(f"the search ended before its kill: {self.error()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened in {AMPLE} s")
            time.sleep(0.001)
        return found


def lines_from(victim, start, word):
    """What was written of a kind since some line, with that word first."""
    return [line for line in victim.journal.lines()[start:] if line[0] == word]


def wait_for_moment(victim, rng, again):
    """Waits until a random moment: at the start, in a trial, between two, or in one once more."""
    start = len(victim.journal.lines())
    if again:  # the trial that was killed before: it begins first
        victim.wait_for(lambda: lines_from(victim, start, "began"))
        time.sleep(rng.uniform(0, 0.003))
        return
    events = rng.choice((0, 1, 1, 2, 3, 4))
    victim.wait_for(lambda: len(victim.journal.lines()) >= start + events)
    time.sleep(rng.uniform(0, 0.25 if events == 0 else 0.012))


def kill_parents(victim, kills, rng):
    """Kills the process of a search; returns the counts and the faults."""
    faults, again = [], False
    for number in range(kills):
        victim.journal.permit((number + 1) * victim.trials // (kills + 1))
        victim.start()
        again = not again and rng.random() < 0.3
        wait_for_moment(victim, rng, again)
        faults += [f"process {pid} outlived its search" for pid in victim.kill()]
    victim.start()
    return {"kills": kills}, faults


def kill_processes(victim, kills, rng):
    """Kills workers, their children, and the search itself; returns the counts and the faults."""
    faults, counts = [], dict.fromkeys(("workers", "children", "searches"), 0)
    victim.journal.permit(1)
    victim.start()
    order = [name for name in counts for _ in range(-(-kills // 3))][:kills]
    rng.shuffle(order)
    for number, name in enumerate(order):
        start = len(victim.journal.lines())
        victim.wait_for(lambda: lines_from(victim, 0, "began"))
        if name == "children":
            victim.journal.permit(number * victim.trials // (kills + 1) + 2)
            while len(lines_from(victim, start, "killed")) == 0:
                seen = len(victim.journal.lines())
                victim.wait_for(lambda seen=seen: lines_from(victim, seen, "child"))
                pid = int(lines_from(victim, seen, "child")[-1][2])
                kill_if_there(pid)
                time.sleep(0.05)
        elif name == "workers":
            below = victim.wait_for(lambda: process_tree.descendants(victim.pid))
            time.sleep(rng.choice((0.0, 0.02, 0.5, 3.0)) * rng.random())
            kill_if_there(rng.choice(below))
        else:
            time.sleep(rng.choice((0.0, 0.02, 0.5, 3.0)) * rng.random())
            faults += [f"process {pid} outlived its search" for pid in victim.kill()]
            victim.start()
        counts[name] += 1
        victim.journal.permit((number + 1) * victim.trials // (kills + 1) + 1)
    return counts, faults


def kill_if_there(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def differences(victim, expected):
    """What differs from the undisturbed search, and what was lost or done twice."""
    found = outcomes(search_of(victim.kind, victim.folder, victim.trials)[0])
    faults = [f"trial {name}: {found.get(name)}, not {end}" for name, end in expected.items()
              if found.get(name) != end]  # fmt: skip
    faults += [f"trial {name} is too much" for name in found if name not in expected]
    ended = set()
    for word, name, *_ in victim.journal.lines():
        if word == "began" and name in ended:
            faults.append(f"trial {name} began after its end")
        if word == "ended":
            ended.add(name)
    faults += [f"{path} was left" for path in victim.folder.rglob("*.part*")]
    return faults


def attack(folder, kind, trials, kills, seed=0):
    """Kills a search, and compares it with one that is not.

    Args:
        folder: An empty folder.
        kind: A key of `KINDS`.
        trials: The number of its trials.
        kills: How often it is killed.
        seed: Seed of the moments.

    Returns:
        Counts by name, and the faults.
    """
    victims = [Victim(kind, pathlib.Path(folder, name), trials) for name in ("entire", "killed")]
    for victim in victims:
        victim.folder.mkdir(parents=True)
        victim.journal.permit(trials)
    entire, killed = victims
    entire.start()
    if entire.end() != 0:
        raise RuntimeError(entire.error())
    expected = outcomes(search_of(kind, entire.folder, trials)[0])
    if len(expected) != trials or {end[0] for end in expected.values()} != {"COMPLETED"}:
        raise RuntimeError(f"the undisturbed search has other trials than {trials} that ended well")
    kinds_of_kills = kill_processes if "process" in kind else kill_parents
    counts, faults = kinds_of_kills(killed, kills, random.Random(seed))
    killed.journal.permit(trials)
    status = killed.end()
    if status:
        faults.append(f"the killed search ended with {status}: {killed.error()}")
    begun = [line[1] for line in killed.journal.lines() if line[0] == "began"]
    twice = sum(begun.count(name) > 2 for name in set(begun))
    return {**counts, "trials killed twice": twice}, faults + differences(killed, expected)


def main(folder, kinds, trials, kills):
    for kind in kinds.split(","):
        ends = attack(pathlib.Path(folder, kind), kind, int(trials), int(kills))
        print(json.dumps({kind: ends}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
