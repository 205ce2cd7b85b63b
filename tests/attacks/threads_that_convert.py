"""Threads that convert and predict at once: the same files and outputs as one after the other."""

import sys
import threading

import keras
import numpy as np
from keras import layers

import tfnas


def models():
    """Models of several kinds, each with a mode and inputs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
    )
    vectors = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(3)])
    x, z = rng.normal(size=(24, 8, 8, 2)), rng.normal(size=(24, 6))
    x, z = x.astype(np.float32), z.astype(np.float32)
    return [(images, "int8", x), (vectors, "float32", z), (images, "float16", x)]


def file_and_output(model, mode, x):
    file = tfnas.to_tflite(model, mode, x)
    return file.content, np.asarray(file.predict(x))


def attack(threads, rounds, isolated):
    """Converts and predicts in threads.

    Args:
        threads: How many at once.
        rounds: How often each of them does.
        isolated: Whether in the helper process.

    Returns:
        The number of conversions, and what went wrong.
    """
    known = models()
    with tfnas.isolated(isolated):
        expected = [file_and_output(*each) for each in known]
    faults, ended = [], []
    streams = sys.stdout, sys.stderr

    def work(number):
        with tfnas.isolated(isolated):
            for turn in range(rounds):
                which = (number + turn) % len(known)
                try:
                    content, output = file_and_output(*known[which])
                except Exception as error:
                    faults.append(f"{type(error).__name__}: {str(error)[:300]}")
                    continue
                if content != expected[which][0]:
                    faults.append(f"another file of model {which}")
                if not np.array_equal(output, expected[which][1]):
                    faults.append(f"other outputs of model {which}")
                ended.append(which)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if (sys.stdout, sys.stderr) != streams:
        faults.append("another stdout or stderr")
    return len(ended), faults


if __name__ == "__main__":
    print(attack(int(sys.argv[1]), int(sys.argv[2]), "isolated" in sys.argv))
