"""The interface of spaces whose networks can share one set of weights.

An elastic network holds the weights of the largest members of a space. Each other member uses a
part of them, and is described by a vector of whole numbers. The vector is an input of the graph, so
that a function of it is traced once for all members.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tfnas.search_space.architecture import Architecture

if TYPE_CHECKING:
    import keras


class Statistics(enum.Enum):
    """Where BatchNormalization takes its mean and variance from."""

    BATCH = "batch"
    """The batch, as in training."""
    MEASURE = "measure"
    """The batch, whose statistics are added to those that are measured for a member."""
    MEASURED = "measured"
    """What was measured, as in inference."""


class ElasticNetwork(Protocol):
    """Shared weights of all members of a space; a built Keras layer."""

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The shared weights."""
        ...

    def member(self, arch: Architecture) -> np.ndarray:
        """Returns the vector that describes a member, int32, (choices,).

        Args:
            arch: An architecture of the space.
        """
        ...

    def logits(
        self, images: Any, member: Any, statistics: Statistics, dropout_seed: Any = None
    ) -> Any:
        """Returns the logits of a member, (batch, classes), inside of a `tf.function`.

        Args:
            images: Raw images, (batch, height, width, channels), or series, (batch, steps,
                channels).
            member: The vector, (choices,); an argument of the function, not a constant.
            statistics: Where BatchNormalization takes its statistics from.
            dropout_seed: Two whole numbers that dropout is drawn from; None: no dropout.
        """
        ...

    def forget_statistics(self) -> None:
        """Forgets what was measured, before another member is."""
        ...

    def transfer(self, arch: Architecture, model: keras.Model) -> None:
        """Copies a member's weights, and the statistics last measured, into its plain model.

        Args:
            arch: The architecture.
            model: The model that the space builds for it; changed in place.
        """
        ...


@runtime_checkable
class ElasticSpace(Protocol):
    """A search space whose networks can share weights."""

    def elastic_network(self, seed: int = 0) -> ElasticNetwork: ...

    def largest(self, rng: np.random.Generator) -> Architecture: ...

    def smallest(self, rng: np.random.Generator) -> Architecture: ...
