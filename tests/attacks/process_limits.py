"""A search of a stub trainer in processes that lack something: disk, memory, descriptors, stdout.

Each ends with an error that says what is missing, or not at all disturbed; the same search started
again where nothing is missing ends with the trials of one that was never disturbed.
"""

import json
import os
import pathlib
import resource
import shlex
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRIALS = 40
SEARCH = [sys.executable, str(HERE / "stub_search.py")]
# Without accelerators: their drivers take descriptors and address space.
QUIET = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}


def environment(**variables):
    """The variables of a program that is attacked."""
    return {**os.environ, **QUIET, **variables}


def run(command, **options):
    """Runs a program to its end; its output is at `stdout` and `stderr` where it is caught."""
    variables = environment(**options.pop("variables", {}))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, env=variables, timeout=600, **options)


def program_ends(name, *arguments):
    """Runs an attack that is a program of this folder; returns what it prints as JSON, by lines."""
    command = [sys.executable, "-W", "ignore", str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in ("[", "{")]


def limited(kind, value):
    """What a process does before it begins: a limit is set."""
    return lambda: resource.setrlimit(kind, (value, value))


def trials_of(folder):
    path = pathlib.Path(folder, "trials.json")
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def search(folder, *options, **how):
    return run([*SEARCH, str(folder), str(TRIALS), *options], **how)


def full_disk(folder):
    """A disk of 96 KiB, in a name space of its own; then it has room. None where that is forbidden.

    Its trials come back by stdout, since the disk ends with the name space.
    """
    folder.mkdir()
    program = shlex.join([*SEARCH, str(folder), str(TRIALS)])
    script = (
        f"mount -t tmpfs -o size=96k disk {shlex.quote(str(folder))} || exit 99\n"
        f"{program} > /dev/null 2> {shlex.quote(str(folder))}.errors && exit 98\n"
        f"mount -o remount,size=64m {shlex.quote(str(folder))} || exit 99\n"
        f"{program} > /dev/null || exit 97\n"
        f"cat {shlex.quote(str(folder))}/trials.json"
    )
    if shutil.which("unshare") is None:
        return None
    done = run(["unshare", "--map-root-user", "--mount", "sh", "-c", script])
    if done.returncode == 99 or b"unshare" in done.stderr:
        return None
    errors = pathlib.Path(f"{folder}.errors").read_text()
    said = "No space left on device" in errors
    return said, json.loads(done.stdout) if done.returncode == 0 else done.stderr.decode()


def file_size(folder):
    """No file of more than 2 KiB; then of any size."""
    failed = search(folder, preexec_fn=limited(resource.RLIMIT_FSIZE, 2048))
    again = search(folder)
    said = failed.returncode != 0 and b"File too large" in failed.stderr
    return said, trials_of(folder) or again.stderr.decode()


def memory(folder):
    """12 GiB of addresses, where each fourth trial asks for more: it fails, and no other does."""
    done = search(folder, "--greedy", preexec_fn=limited(resource.RLIMIT_AS, 12 * 2**30))
    found = trials_of(folder) or {}
    failed = [int(name) for name, (status, *_) in found.items() if status == "FAILED"]
    said = done.returncode == 0 and failed == list(range(3, TRIALS, 4))
    return said, None if said else done.stderr.decode()


def descriptors(folder):
    """64 open files at most, from the beginning."""
    done = search(folder, preexec_fn=limited(resource.RLIMIT_NOFILE, 64))
    return done.returncode == 0, trials_of(folder) or done.stderr.decode()


def closed_stdout(folder):
    """Without stdout and stderr."""
    command = shlex.join([*SEARCH, str(folder), str(TRIALS)])
    done = run(["sh", "-c", f"exec {command} >&- 2>&-"])
    return done.returncode == 0, trials_of(folder)


def full_stdout(folder):
    """Where nothing can be written to stdout; None on a system without /dev/full."""
    if not os.path.exists("/dev/full"):
        return None
    with open("/dev/full", "w") as full:
        done = search(folder, stdout=full)
    return trials_of(folder) is not None, trials_of(folder) or done.stderr.decode()


def broken_pipe(folder):
    """Where whoever reads stdout is gone."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as pipe:
        done = search(folder, stdout=pipe)
    return trials_of(folder) is not None, trials_of(folder) or done.stderr.decode()


def no_locale(folder):
    """LC_ALL=C, in a folder whose name is not ASCII."""
    variables = {"LC_ALL": "C", "LANG": "C"}
    done = search(folder / "größe", variables=variables)
    return done.returncode == 0, trials_of(folder / "größe") or done.stderr.decode()


ATTACKS = {
    attack.__name__.replace("_", " "): attack
    for attack in (
        *(full_disk, file_size, memory, descriptors),
        *(closed_stdout, full_stdout, broken_pipe, no_locale),
    )
}


def attack(folder, names=tuple(ATTACKS)):
    """Runs searches in want of something.

    Args:
        folder: An empty folder.
        names: Which; all of `ATTACKS` by default.

    Returns:
        Name -> "as undisturbed", "impossible here", or what went wrong.
    """
    folder = pathlib.Path(folder)
    done = search(folder / "undisturbed")
    expected = trials_of(folder / "undisturbed")
    if expected is None or len(expected) != TRIALS:
        raise RuntimeError(done.stderr.decode()[-2000:])
    ends = {}
    for name in names:
        result = ATTACKS[name](folder / name)
        if result is None:
            ends[name] = "impossible here"
        elif not result[0]:
            ends[name] = f"did not say what is missing: {str(result[1])[-800:]}"
        elif result[1] is not None and result[1] != expected:
            ends[name] = f"other trials: {str(result[1])[-800:]}"
        else:
            ends[name] = "as undisturbed"
    return ends


if __name__ == "__main__":
    for name, end in attack(*sys.argv[1:2], sys.argv[2:] or tuple(ATTACKS)).items():
        print(f"{name}: {end}")
