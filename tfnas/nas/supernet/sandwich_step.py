"""A training step of shared weights: the sandwich rule with in-place distillation.

Each step trains the largest network on the labels, then the smallest and some random ones on the
labels and on the outputs of the largest. Each one's gradients change the weights at once, unlike in
the papers, which add up those of a step: on small data the number of updates limits what is learned
(decision 60). The graph of a member's gradients is traced once and called for each. Which networks
these are is drawn elsewhere (:mod:`tfnas.nas.supernet.member_draws`): the first is the teacher.

References:
    Yu and Huang, "Universally Slimmable Networks", ICCV 2019 (sandwich rule, in-place
    distillation); Yu et al., "BigNAS", ECCV 2020; Wang et al., "AlphaNet", ICML 2021.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.data.reading import Batch
from tfnas.distillation.losses import kl_divergence, weighted_mean
from tfnas.search_space.elastic import ElasticNetwork, Statistics


class SandwichStep:
    """Changes shared weights by the gradients of several members, one after the other.

    The weights are one long vector for the optimizer: an update of each variable of its own would
    take longer to trace than the network.

    Args:
        network: The shared weights.
        loss_model: A compiled model of the space, whose loss of targets and probabilities counts.
        optimizer: An optimizer that was not used.
        label_weight: Weight of the labels in the loss of all but the first network.
    """

    def __init__(
        self,
        network: ElasticNetwork,
        loss_model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        label_weight: float,
    ) -> None:
        self.network, self.loss_model, self.optimizer = network, loss_model, optimizer
        self.label_weight = label_weight
        self._shared = network.trainable_variables
        values = [np.ravel(np.asarray(variable)) for variable in self._shared]
        self.weights = keras.Variable(np.concatenate(values), name="shared_weights")
        self.optimizer.build([self.weights])
        self.traces = 0
        """How often the gradients of a member were traced."""
        self._step: Any = None

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a training changes, but for the network's own copies of the weights."""
        return [self.weights, *self.optimizer.variables]

    def restore(self, values: list[np.ndarray]) -> None:
        """Assigns :attr:`variables`, and the network's copies of the weights.

        Args:
            values: Their values.
        """
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        self._spread()

    def __call__(self, batch: Batch, members: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
        """Trains a step; returns the loss of each member, (members,).

        Args:
            batch: Images, targets and weights of the examples.
            members: The vectors of the members, the teacher first, (members, choices).
            seed: Two whole numbers that dropout is drawn from.
        """
        tensors = [tf.convert_to_tensor(part) for part in batch]
        if self._step is None:
            self._step = self._compiled(tensors, members.shape)
        losses = self._step(*tensors, tf.constant(members), tf.constant(seed, tf.int32))
        return np.asarray(losses)

    def _compiled(self, batch: list[Any], shape: tuple[int, ...]) -> Any:
        """The graph of a step for batches of any size."""
        specs = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in batch]
        specs += [tf.TensorSpec(shape, tf.int32), tf.TensorSpec([2], tf.int32)]
        # As a call, not inlined: else the graph would hold each member's operations again.
        gradients = tf.function(
            self._gradients, autograph=False, experimental_attributes={"_noinline": True}
        )

        def step(images: Any, targets: Any, weights: Any, members: Any, seed: Any) -> Any:
            examples = images, targets, weights
            classes = self.loss_model.output_shape[-1]
            teacher = tf.zeros([tf.shape(images)[0], classes])  # the first one has none
            share, losses = tf.constant(1.0), []
            for index in range(shape[0]):
                loss, found, logits = gradients(*examples, members[index], seed, teacher, share)
                losses.append(loss)
                self.optimizer.apply([found], [self.weights])
                self._spread()
                if index == 0:
                    teacher, share = logits, tf.constant(self.label_weight)
            return tf.stack(losses)

        return tf.function(step, input_signature=specs, autograph=False)

    def _gradients(
        self,
        images: Any,
        targets: Any,
        weights: Any,
        member: Any,
        seed: Any,
        teacher: Any,
        share: Any,
    ) -> tuple[Any, Any, Any]:
        """Loss, gradient of the long vector, and logits of a member."""
        self.traces += 1
        logits = self.network.logits(images, member, Statistics.BATCH, seed)
        logits = tf.ensure_shape(logits, [None, self.loss_model.output_shape[-1]])
        loss = self.loss_model.compute_loss(
            x=images, y=targets, y_pred=tf.nn.softmax(logits), sample_weight=weights
        )
        divergence = weighted_mean(kl_divergence(logits, teacher), weights)
        loss = share * loss + (1.0 - share) * divergence
        variables = [variable.value for variable in self._shared]
        # Branches of the graph have gradients, but not on a tape.
        found = tf.gradients(loss, variables)
        zeros = zip(found, variables, strict=True)
        parts = [tf.zeros([tf.size(v)]) if g is None else tf.reshape(g, [-1]) for g, v in zeros]
        return loss, tf.concat(parts, 0), tf.stop_gradient(logits)

    def _spread(self) -> None:
        """Copies the long vector into the network's variables."""
        sizes = [int(np.prod(variable.shape)) for variable in self._shared]
        parts = tf.split(self.weights.value, sizes)
        for variable, part in zip(self._shared, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))
