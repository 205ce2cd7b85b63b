"""Mutated `.tflite` files, each loaded, checked and run as a user would, inside of isolated().

As a script it is the caller that must survive:

    python tests/attacks/tflite_files.py FOLDER FIRST LAST

prints the number of each file before it is tried, and then how it ended.
"""

import collections
import contextlib
import importlib.util
import io
import pathlib
import subprocess
import sys

import numpy as np

import tfnas

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "contracts"))

import fuzzing  # noqa: E402

ENDS = ("refused", "ran", "died in the helper")  # all of them are right
SHARED = HERE.parents[3] / "shared" / "data"


def sound_files():
    """Files that need no conversion: ours, and those of others that are on this machine."""
    files = {"reference": pathlib.Path(tfnas.__file__).parent / "measure" / "reference.tflite"}
    micro = importlib.util.find_spec("tflite_micro")
    others = list(SHARED.glob("**/*.tflite"))
    if micro is not None:
        others += pathlib.Path(micro.origin).parents[2].glob("tflite_micro/**/*.tflite")
    files.update((path.stem, path) for path in others)
    return {name: path.read_bytes() for name, path in files.items()}


def converted_files():
    """Files of tfnas in all formats, and of TensorFlow's converter and of ai-edge-quantizer."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 4)).astype(np.float32)
    images = keras.Sequential(
        [
            *(keras.Input((8, 8, 4)), layers.Conv2D(4, 3, activation="relu")),
            *(layers.DepthwiseConv2D(3), layers.Conv2D(32, 1), layers.GlobalAveragePooling2D()),
            layers.Dense(10, activation="softmax"),
        ]
    )
    modes = ("float32", "float16", "int8", "int8x4", "int4", "weights8")
    files = {mode: tfnas.to_tflite(images, mode, x).content for mode in modes}
    pruned, _ = tfnas.prune(images, 0.8)
    files["sparse"] = tfnas.to_tflite(pruned, sparse=True).content
    one, two = keras.Input((6, 6, 2), name="one"), keras.Input((4,), name="two")
    ends = layers.Dense(4)(layers.Flatten()(keras.ops.transpose(one, (0, 3, 1, 2))))
    wide = keras.Model([one, two], [layers.Add()([ends, two]), keras.ops.cumsum(ends, axis=1)])
    files["wide"] = tfnas.to_tflite(wide).content
    series = keras.Sequential([keras.Input((6, 3), batch_size=1), layers.LSTM(4)])
    files["lstm"] = tfnas.to_tflite(series).content

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int32)])
    def loop(count):  # control flow and a text, which tfnas itself does not make
        total = tf.while_loop(lambda i: i < count[0], lambda i: i + 1, [tf.constant(0)])
        return tf.gather(tf.constant(["one", "two"]), total[0] % 2)

    made = tf.lite.TFLiteConverter.from_concrete_functions([loop.get_concrete_function()])
    files["TensorFlow loop"] = made.convert()
    with contextlib.redirect_stdout(io.StringIO()):
        made = tf.lite.TFLiteConverter.from_keras_model(images)
        made.optimizations = [tf.lite.Optimize.DEFAULT]
        files["TensorFlow dynamic range"] = made.convert()
    return files


def write_files(folder, files):
    """Writes the files of an attack into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, content) in enumerate(sorted(files.items())):
        (folder / f"{number:02d} {name.replace('/', ' ')}.tflite").write_bytes(content)


def attack(folder, count, first=0):
    """Tries mutated files, and returns how many ended in which way.

    Args:
        folder: A folder of sound files.
        count: How many.
        first: The number of the first one.

    Returns:
        End -> number of files; "ended the caller" and "wrong error" are failures.
    """
    found, number, faults = collections.Counter(), first, []
    while number < first + count:
        arguments = [str(HERE), str(folder), str(number), str(first + count)]
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            name, _, end = line.partition(" ")
            number = int(name) + 1
            found[end.split(":")[0] or "ended the caller"] += 1
            if end.split(":")[0] not in ENDS:
                faults.append(f"{line} ({done.returncode})")
        if not done.stdout:
            raise RuntimeError(done.stderr[-2000:])
    return found, faults


def end_of(content):
    """How a file ends: as one of `ENDS`, or as an error that is no documented one."""
    try:
        artifact = tfnas.Artifact(content)
    except ValueError:
        return "refused"
    if not artifact.graph.tensors:  # sound, and there is nothing to run
        return "refused"
    try:
        with tfnas.isolated():
            fuzzing.use(artifact.content)
    except (ValueError, RuntimeError) as error:
        return "died in the helper" if "whose first run" in str(error) else "refused"
    except Exception as error:
        return f"wrong error: {type(error).__name__} {' '.join(str(error).split())[:200]}"
    return "ran"


def main(folder, first, last):
    import tfnas.tflite.file_weights  # noqa: F401

    files = [path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.tflite"))]
    for number in range(int(first), int(last)):
        print(number, end=" ", flush=True)
        rng = np.random.default_rng([11, number])
        content = fuzzing.damaged(rng, files[number % len(files)])
        with contextlib.redirect_stderr(io.StringIO()):
            print(end_of(content), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
