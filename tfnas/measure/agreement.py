"""Agreement: whether a compressed file still predicts as the original does.

Two files of equal accuracy may be wrong on different examples, one class may have lost most, or
the confidence may no longer be calibrated. So both files predict the same images, unchanged and
corrupted (noise, blur, brightness), and each difference is paired over the examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.measure.accuracy import correct, paired_difference, wilson_interval
from tfnas.tflite.artifact import Artifact

if TYPE_CHECKING:
    from tfnas.data.examples import ExampleSet

BINS = 15
NOISE, BRIGHTNESS, ATTACK = 12.0, 40.0, 2.0  # of pixels from 0 to 255


@dataclasses.dataclass(frozen=True)
class MetricPair:
    """A metric of the original and of the compressed file on the same examples.

    Args:
        original: Accuracy of the original, in [0, 1].
        small: Accuracy of the compressed file, in [0, 1].
        difference: `small` minus `original`, with its 95% interval: (value, low, high).
    """

    original: float
    small: float
    difference: tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """How the predictions of two files agree on the same examples.

    Args:
        examples: Number of examples.
        changed: Fraction whose predicted class changed, with its 95% interval:
            (value, low, high).
        broke: Number of examples that the original has right and the compressed file wrong.
        repaired: Number of examples that the compressed file has right and the original wrong.
        accuracy: Accuracy of both by condition: "as they are", noise, blur, brightness, attack.
        classes: Accuracy of both by class.
        calibration: Expected calibration error of (original, compressed), in [0, 1].
        worst: Indices of the examples that broke, by falling confidence of the original.
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
        """Returns the conditions and classes that lost more accuracy than the examples overall.

        A condition or class is listed if the upper end of its difference's interval is below
        zero and below the lower end of the difference on the unchanged examples.
        """
        plain = self.accuracy[PLAIN].difference[1]
        found = []
        for preposition, pairs in (("under", self.accuracy), ("of class", self.classes)):
            for name, pair in pairs.items():
                value, _, high = pair.difference
                if name != PLAIN and high < min(0.0, plain):
                    found.append(
                        f"accuracy {preposition} {name} falls by {-100 * value:.1f} points, "
                        "more than overall"
                    )
        return found


PLAIN = "as they are"


def agreement(
    original: Artifact,
    small: Artifact,
    x: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str] = (),
    keras_models: tuple[Any, Any] | None = None,
    seed: int = 0,
    *,
    answers: tuple[np.ndarray, np.ndarray] | None = None,
) -> Agreement:
    """Compares the predictions of two image classifiers on unchanged and corrupted images.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...     keras.layers.Dense(3)])
        >>> file, images = tfnas.to_tflite(model), np.zeros((8, 4, 4, 1), "float32")
        >>> agreement(file, file, images, np.zeros(8, int)).changed[0]
        0.0

    Args:
        original: The original file.
        small: The compressed file.
        x: Images (n, height, width, channels), pixels 0 to 255.
        y: Class indices (n,).
        class_names: Name of each class; empty: the indices.
        keras_models: The Keras models of (original, small). Adds adversarial images: one step
            of the fast gradient sign method on each model, predicted by its own file (a file
            has no gradient).
        seed: Seed of the noise.
        answers: Predictions of (original, small) for `x`, if they are known; None: both files
            are run.

    Returns:
        The agreement.

    Raises:
        ValueError: `answers` are not one prediction per image.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Goodfellow et al.,
        "Explaining and Harnessing Adversarial Examples", ICLR 2015; Hendrycks and Dietterich,
        "Benchmarking Neural Network Robustness", ICLR 2019.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y).reshape(-1)
    if answers is None:
        answers = original.predict(x), small.predict(x)
    elif any(len(answer) != len(x) for answer in answers):
        raise ValueError(
            f"answers must hold one prediction for each of the {len(x)} images, got "
            f"{[len(answer) for answer in answers]}"
        )
    right = [correct(y, a) for a in answers]
    accuracy = {PLAIN: pair(*right)}
    for name, corrupt in corruptions(seed).items():
        images = corrupt(x)
        accuracy[name] = pair(*(correct(y, f.predict(images)) for f in (original, small)))
    if keras_models is not None:
        attacked = [attack(model, x, y) for model in keras_models]
        files = zip((original, small), attacked, strict=True)
        name = f"attack (one step of {ATTACK:g}, computed on each Keras model)"
        accuracy[name] = pair(*(correct(y, file.predict(images)) for file, images in files))
    return _compared(answers, y, accuracy, class_names)


def class_agreement(
    original: Artifact,
    small: Artifact,
    examples: ExampleSet,
    class_names: Sequence[str] = (),
    *,
    from_logits: bool | None = None,
) -> Agreement:
    """Compares the predicted classes of two files on examples of any kind, a batch at a time.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        >>> file, x = tfnas.to_tflite(model), np.zeros((8, 4), "float32")
        >>> found = class_agreement(file, file, tfnas.data.Examples(x, np.arange(8) % 3))
        >>> found.broke, list(found.classes)
        (0, ['0', '1', '2'])

    Args:
        original: The original file.
        small: The compressed file.
        examples: The examples; their targets are class indices or one-hot rows.
        class_names: Name of each class; empty: the indices.
        from_logits: Whether the outputs are logits; None: where they do not sum to 1.

    Returns:
        The agreement, on the examples as they are.

    Raises:
        ValueError: The files do not give one class for each example.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for batch in examples.batches():
        answers = [np.asarray(file.predict(batch.x)) for file in (original, small)]
        if any(answer.ndim != 2 for answer in answers):
            raise ValueError(
                "files must give scores of classes, of shape (examples, classes), got "
                f"{', '.join(str(answer.shape) for answer in answers)}"
            )
        labels = np.asarray(batch.y)
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        parts.append((answers[0], answers[1], labels.reshape(-1)))
    if not parts:
        raise ValueError("examples must hold at least one example, got none")
    before, after, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    if from_logits:
        before, after = probabilities(before, True), probabilities(after, True)
    right = [correct(y, answer) for answer in (before, after)]
    return _compared((before, after), y, {PLAIN: pair(*right)}, class_names)


def _compared(
    answers: tuple[np.ndarray, np.ndarray],
    y: np.ndarray,
    accuracy: dict[str, MetricPair],
    class_names: Sequence[str],
) -> Agreement:
    """Returns the agreement of two files' predictions.

    Args:
        answers: Predictions of both, (n, classes) each.
        y: Class indices (n,).
        accuracy: Accuracy of both by condition.
        class_names: Name of each class; empty: the indices.
    """
    right = [correct(y, a) for a in answers]
    predicted = [probabilities(a).argmax(-1) for a in answers]
    changes = int((predicted[0] != predicted[1]).sum())
    names = list(class_names) or [str(n) for n in range(int(y.max()) + 1)]
    classes = {
        name: pair(right[0][y == n], right[1][y == n])
        for n, name in enumerate(names)
        if (y == n).any()
    }
    confidence = probabilities(answers[0])[np.arange(len(y)), predicted[0]]
    broke = np.flatnonzero(right[0] & ~right[1])
    return Agreement(
        len(y),
        (changes / len(y), *wilson_interval(changes, len(y))),
        len(broke),
        int((~right[0] & right[1]).sum()),
        accuracy,
        classes,
        (calibration_error(answers[0], y), calibration_error(answers[1], y)),
        broke[np.argsort(-confidence[broke], kind="stable")],
    )


def pair(original: np.ndarray, small: np.ndarray) -> MetricPair:
    """Returns the accuracies of two models and their paired difference.

    Args:
        original: Whether the original is right, (examples,) of bool.
        small: Whether the compressed model is right, (examples,) of bool.
    """
    difference = paired_difference(small, original)
    return MetricPair(float(original.mean()), float(small.mean()), difference)


def corruptions(seed: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns mild image corruptions by name; a robust classifier tolerates them."""
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
    """Returns adversarial images: one step of the fast gradient sign method.

    Args:
        model: A Keras classifier.
        x: Images (n, height, width, channels), pixels 0 to 255.
        y: Class indices (n,).
        batch_size: Images per gradient.
    """
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def gradient(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=False)
            outputs = outputs[0] if isinstance(outputs, list | tuple) else outputs
            if outputs.shape[-1] == 1:  # the probability or logit of class 1
                margin = (1 - 2 * tf.cast(labels, outputs.dtype)) * outputs[:, 0]
                return tape.gradient(margin, images)
            # The margin works for probabilities and logits: best other class minus true class.
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
    """Returns the expected calibration error, in [0, 1], over 15 bins of equal width.

    Example:
        >>> calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
        0.5

    Args:
        answers: Predictions (n, classes), probabilities or logits.
        y: Class indices (n,).

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    return confidence_gap(probabilities(answers).max(-1), correct(y, answers))


def confidence_gap(confidence: np.ndarray, right: np.ndarray) -> float:
    """Returns the expected calibration error of predicted classes.

    Args:
        confidence: Probability of each predicted class, (predictions,).
        right: Whether each is right, (predictions,) of bool.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def probabilities(answers: np.ndarray, from_logits: bool | None = None) -> np.ndarray:
    """Returns predictions as probabilities (n, classes), at least two.

    Args:
        answers: Predictions (n, classes), or (n, 1) of a binary model.
        from_logits: Whether they are logits; None: where they do not sum to 1.
    """
    answers = np.asarray(answers, np.float64)
    if answers.shape[-1] == 1:
        if from_logits is None:
            from_logits = not ((answers >= 0).all() and (answers <= 1).all())
        second = 1 / (1 + np.exp(-answers)) if from_logits else answers
        return np.concatenate([1 - second, second], axis=-1)
    if from_logits is None:
        from_logits = not ((answers >= 0).all() and np.allclose(answers.sum(-1), 1, atol=0.05))
    if not from_logits:
        return answers
    scaled = np.exp(answers - answers.max(-1, keepdims=True))
    return scaled / scaled.sum(-1, keepdims=True)
