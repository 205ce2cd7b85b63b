"""Whether a small file is still the same model as the one that it came from.

Equal accuracy hides that other examples are wrong now, that one class pays for all, or that
what the model says of its own certainty no longer holds. So both files answer the same images,
as they are and changed, and every difference is paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.measure.accuracy import correct, paired_difference, wilson_interval
from tfnas.tflite.artifact import Artifact

BINS = 15
NOISE, BRIGHTNESS, ATTACK = 12.0, 40.0, 2.0  # of pixels from 0 to 255


@dataclasses.dataclass(frozen=True)
class MetricPair:
    """A share of the original and of the small file on the same examples.

    Args:
        original: The original's.
        small: The small file's.
        difference: Small minus original, with its 95% interval: (value, low, high).
    """

    original: float
    small: float
    difference: tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """How two files answer the same examples.

    Args:
        examples: Number of examples.
        changed: Share whose class changed, with its 95% interval: (value, low, high).
        broke: Examples that the original had right and the small file has wrong.
        repaired: Examples that the small file has right and the original had wrong.
        accuracy: Condition -> accuracy of both: "as they are", noise, blur, brightness, attack.
        classes: Class -> accuracy of both.
        calibration: Expected calibration error of (original, small), in [0, 1].
        worst: Examples that broke, those of which the original was most certain first.
    """

    examples: int
    changed: tuple[float, float, float]
    broke: int
    repaired: int
    accuracy: dict[str, MetricPair]
    classes: dict[str, MetricPair]
    calibration: tuple[float, float]
    worst: np.ndarray = dataclasses.field(repr=False)

    def warnings(self) -> list[str]:
        """Returns where the small file fails and the original does not, beyond doubt.

        A condition or class counts where the interval of its difference lies further below
        zero than that of the examples as they are.
        """
        plain = self.accuracy[PLAIN].difference[1]
        found = []
        for what, pairs in (("under", self.accuracy), ("of class", self.classes)):
            for name, pair in pairs.items():
                value, _, high = pair.difference
                if name != PLAIN and high < min(0.0, plain):
                    found.append(
                        f"accuracy {what} {name} falls by {-100 * value:.1f} points, more than "
                        "overall"
                    )
        return found


PLAIN = "as they are"


def agreement(
    original: Artifact,
    small: Artifact,
    x: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str] = (),
    twins: tuple[Any, Any] | None = None,
    seed: int = 0,
    *,
    answers: tuple[np.ndarray, np.ndarray] | None = None,
) -> Agreement:
    """Compares the answers of two classifiers of images, as they are and changed.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...     keras.layers.Dense(3)])
        >>> file, images = tfnas.to_tflite(model), np.zeros((8, 4, 4, 1), "float32")
        >>> sameness(file, file, images, np.zeros(8, int)).changed[0]
        0.0

    Args:
        original: The file to compare with.
        small: The file that came from it.
        x: Images (n, height, width, channels), pixels 0 to 255.
        y: Labels (n,).
        class_names: Name of each label.
        twins: (original, small) as Keras models: adds images attacked by one step of the
            gradient's sign, each made on the original's twin and on the small one's, and shown
            to the respective file (transferred, since a file has no gradient).
        seed: Seed of the noise.
        answers: What (original, small) gave for these images, where that is known; None: they
            are asked.

    Returns:
        The record.

    Raises:
        ValueError: `answers` are not of as many images.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Goodfellow et al.,
        "Explaining and Harnessing Adversarial Examples", ICLR 2015; Hendrycks and Dietterich,
        "Benchmarking Neural Network Robustness", ICLR 2019.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y).reshape(-1)
    if answers is None:
        answers = original.predict(x), small.predict(x)
    elif any(len(given) != len(x) for given in answers):
        raise ValueError(
            f"answers must be those to {len(x)} images, got {[len(given) for given in answers]}"
        )
    right = [correct(y, a) for a in answers]
    told = [_classes(a) for a in answers]
    changes = int((told[0] != told[1]).sum())
    accuracy = {PLAIN: pair(*right)}
    for name, change in changes_of(seed).items():
        images = change(x)
        accuracy[name] = pair(*(correct(y, f.predict(images)) for f in (original, small)))
    if twins is not None:
        attacked = [attack(twin, x, y) for twin in twins]
        files = zip((original, small), attacked, strict=True)
        name = f"attack (one step of {ATTACK:g}, made on each Keras twin)"
        accuracy[name] = pair(*(correct(y, file.predict(images)) for file, images in files))
    names = list(class_names) or [str(n) for n in range(int(y.max()) + 1)]
    classes = {
        name: pair(right[0][y == n], right[1][y == n])
        for n, name in enumerate(names)
        if (y == n).any()
    }
    certainty = _probabilities(answers[0])[np.arange(len(y)), told[0]]
    broke = np.flatnonzero(right[0] & ~right[1])
    return Agreement(
        len(y),
        (changes / len(y), *wilson_interval(changes, len(y))),
        len(broke),
        int((~right[0] & right[1]).sum()),
        accuracy,
        classes,
        (calibration_error(answers[0], y), calibration_error(answers[1], y)),
        broke[np.argsort(-certainty[broke], kind="stable")],
    )


def pair(original: np.ndarray, small: np.ndarray) -> MetricPair:
    """Returns the record of two models' right answers to the same examples."""
    difference = paired_difference(small, original)
    return MetricPair(float(original.mean()), float(small.mean()), difference)


def changes_of(seed: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns changes of images that a robust classifier bears."""
    from scipy.ndimage import gaussian_filter

    def noise(x: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.clip(x + rng.normal(0, NOISE, x.shape), 0, 255).astype(np.float32)

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, 0.8, 0.8, 0)).astype(np.float32)

    return {
        f"noise of {NOISE:g}": noise,
        "blur of 0.8 pixels": blur,
        f"brightness +{BRIGHTNESS:g}": lambda x: np.clip(x + BRIGHTNESS, 0, 255),
        f"brightness -{BRIGHTNESS:g}": lambda x: np.clip(x - BRIGHTNESS, 0, 255),
    }


def attack(model: Any, x: np.ndarray, y: np.ndarray, batch_size: int = 200) -> np.ndarray:
    """Returns images moved by one step along the sign of the loss's gradient.

    Args:
        model: A Keras classifier.
        x: Images, pixels 0 to 255.
        y: Labels.
        batch_size: Images a pass.
    """
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def gradient(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=False)
            outputs = outputs[0] if isinstance(outputs, list | tuple) else outputs
            if outputs.shape[-1] == 1:  # of the second class
                margin = (1 - 2 * tf.cast(labels, outputs.dtype)) * outputs[:, 0]
                return tape.gradient(margin, images)
            # Of probabilities and of logits alike: the true class against the best other one.
            truth = tf.one_hot(labels, outputs.shape[-1])
            margin = tf.reduce_max(outputs - 1e9 * truth, -1) - tf.reduce_sum(outputs * truth, -1)
        return tape.gradient(margin, images)

    parts = []
    for begin in range(0, len(x), batch_size):
        images, labels = x[begin : begin + batch_size], y[begin : begin + batch_size]
        step = np.sign(gradient(tf.constant(images), tf.constant(labels)))
        parts.append(np.clip(images + ATTACK * step, 0, 255))
    return np.concatenate(parts).astype(np.float32)


def calibration_error(answers: np.ndarray, y: np.ndarray) -> float:
    """Returns the expected calibration error, in [0, 1], of 15 bins of equal width.

    Example:
        >>> calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
        0.5

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    probabilities = _probabilities(answers)
    certainty, right = probabilities.max(-1), correct(y, answers)
    bins = np.minimum((certainty * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right[bins == b].mean() - certainty[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def _probabilities(answers: np.ndarray) -> np.ndarray:
    """(n, classes); logits are told by not adding up to 1."""
    answers = np.asarray(answers, np.float64)
    if answers.shape[-1] == 1:
        inside = (answers >= 0).all() and (answers <= 1).all()
        share = answers if inside else 1 / (1 + np.exp(-answers))
        return np.concatenate([1 - share, share], axis=-1)
    if (answers >= 0).all() and np.allclose(answers.sum(-1), 1, atol=0.05):
        return answers
    scaled = np.exp(answers - answers.max(-1, keepdims=True))
    return scaled / scaled.sum(-1, keepdims=True)


def _classes(answers: np.ndarray) -> np.ndarray:
    return _probabilities(answers).argmax(-1)
