"""The accuracy of members of an elastic network, without a model or a trace of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfnas.measure.accuracy import score
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.elastic import ElasticNetwork, Statistics

_BATCH = 256


class MemberScores:
    """Computes accuracies with BatchNormalization statistics that are measured for each member.

    Args:
        network: The shared weights, trained.
        calibration: Images that the statistics are measured on, (examples, ...).
        images: Validation images.
        targets: Their targets, class indices or one-hot.
    """

    def __init__(
        self, network: ElasticNetwork, calibration: Any, images: Any, targets: Any
    ) -> None:
        self.network = network
        self._calibration, self._images = _parts(calibration), _parts(images)
        self._targets = np.asarray(targets)
        self.traces = 0
        """How often the network was traced: twice, whatever the number of members."""
        first = self._images[0]
        images_spec = tf.TensorSpec([None, *first.shape[1:]], first.dtype)
        self._signature = [images_spec, tf.TensorSpec([None], tf.int32)]
        self._measure, self._probabilities = map(
            self._compiled, (Statistics.MEASURE, Statistics.MEASURED)
        )

    def _compiled(self, statistics: Statistics) -> Any:
        def outputs(images: Any, member: Any) -> Any:
            self.traces += 1
            return tf.nn.softmax(self.network.logits(images, member, statistics))

        return tf.function(outputs, input_signature=self._signature, autograph=False)

    def measure(self, arch: Architecture) -> None:
        """Measures the statistics of a member, for its outputs or a transfer of its weights.

        Args:
            arch: The member.
        """
        self.network.forget_statistics()
        member = tf.constant(self.network.member(arch))
        for part in self._calibration:
            self._measure(part, member)

    def probabilities(self, arch: Architecture) -> np.ndarray:
        """Returns the outputs of a member for the validation images, (examples, classes).

        Args:
            arch: The member; :meth:`measure` must have been called for it last.
        """
        member = tf.constant(self.network.member(arch))
        return np.concatenate([self._probabilities(part, member) for part in self._images])

    def accuracy(self, arch: Architecture) -> float:
        """Returns the accuracy of a member on the validation images.

        Args:
            arch: The member.
        """
        self.measure(arch)
        return float(score(self._targets, self.probabilities(arch)).value)


def _parts(images: Any) -> list[Any]:
    """Batches of nearly equal size."""
    array = np.asarray(images, np.float32)
    parts = np.array_split(array, -(-len(array) // _BATCH))
    return [tf.constant(part) for part in parts]
