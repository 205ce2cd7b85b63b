"""How well scores of shared weights order networks: against the same networks trained alone."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.measure.accuracy import score
from tfnas.nas.fit_arguments import validation_pair
from tfnas.nas.supernet.supernet_files import ALONE
from tfnas.runtime.json_lines import append_json_line, read_json_lines
from tfnas.runtime.store import damage_named

if TYPE_CHECKING:
    from tfnas.nas.supernet.weight_sharing import WeightSharing

_RESAMPLES, _BATCH, _DRAWS = 500, 256, 100


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Kendall's rank correlation of scores with accuracies of networks trained alone.

    Args:
        tau: Kendall's tau-b, from -1 to 1.
        low: Lower end of its 95% interval, a bootstrap over the networks.
        high: Upper end.
        networks: Number of networks.
    """

    tau: float
    low: float
    high: float
    networks: int

    @classmethod
    def of(cls, scores: Sequence[float], alone: Sequence[float]) -> RankCorrelation:
        """Returns the correlation of two rows of accuracies.

        Example:
            >>> print(RankCorrelation.of([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.8, 0.7]))
            Kendall's tau 0.67 [-1.00, 1.00] on 4 networks

        Args:
            scores: Accuracies with the shared weights, (networks,).
            alone: Accuracies of the same networks trained alone, (networks,).
        """
        from scipy.stats import kendalltau

        # Sorted, so that the interval does not depend on the order of the networks.
        pairs = np.array(sorted(zip(scores, alone, strict=True)), float).T
        rng = np.random.default_rng(0)
        tau = float(kendalltau(*pairs).statistic)
        draws = []
        for _ in range(_RESAMPLES):
            drawn = pairs[:, rng.integers(pairs.shape[1], size=pairs.shape[1])]
            if (np.ptp(drawn, axis=1) > 0).all():
                draws.append(kendalltau(*drawn).statistic)
        low, high = np.percentile(draws, [2.5, 97.5]) if draws else (np.nan, np.nan)
        return cls(tau, float(low), float(high), pairs.shape[1])

    def __str__(self) -> str:
        return (
            f"Kendall's tau {self.tau:.2f} [{self.low:.2f}, {self.high:.2f}] on {self.networks} "
            "networks"
        )


def trained_alone(
    sharing: WeightSharing,
    networks: int,
    train: Callable[[Any], keras.Model],
    validation_data: Any,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> RankCorrelation:
    """Trains random networks alone, and returns the correlation with their scores.

    They are within the bounds that the shared weights were trained within.
    The accuracies are kept in a file, a line for each network; those in it are not trained again.

    Args:
        sharing: The trained shared weights.
        networks: Number of networks, at most.
        train: Trains an architecture alone, and returns its model.
        validation_data: Images and targets of the accuracies.
        report: Called after each network with their number so far, and in all.
    """
    path = sharing.folder / ALONE
    rng = np.random.default_rng([sharing.seed, 3])
    archs: dict[Any, Any] = {}
    for _ in range(_DRAWS * networks):  # there may be fewer networks
        if len(archs) < networks:
            arch = sharing.draws.random(rng)
            archs[arch.network] = arch
    kept = _read(path)
    for number, arch in enumerate(archs.values(), 1):
        if arch.key not in kept:
            shared, alone = _score(sharing, arch), _accuracy(train(arch), validation_data)
            append_json_line(path, {"architecture": arch.key, "shared": shared, "alone": alone})
            kept[arch.key] = shared, alone
        report(number, len(archs))
    return RankCorrelation.of(*zip(*(kept[arch.key] for arch in archs.values()), strict=True))


def _score(sharing: WeightSharing, arch: Any) -> float:
    assert sharing.scores is not None
    return sharing.scores.accuracy(arch)


def _accuracy(model: keras.Model, validation_data: Any) -> float:
    images, targets = validation_pair(validation_data)
    # Not `predict`, which would trace a function for each network.
    parts = np.array_split(np.asarray(images), -(-len(images) // _BATCH))
    outputs = np.concatenate([np.asarray(model(part, training=False)) for part in parts])
    return float(score(targets, outputs).value)


def kept_correlation(path: pathlib.Path) -> RankCorrelation | None:
    """Returns the correlation of the networks in a file; None: there are fewer than three.

    Args:
        path: The file that :func:`trained_alone` wrote.
    """
    kept = _read(path)
    return None if len(kept) < 3 else RankCorrelation.of(*zip(*kept.values(), strict=True))


def _read(path: pathlib.Path) -> dict[str, tuple[float, float]]:
    with damage_named(path, "accuracies of networks trained alone"):
        return {
            str(line["architecture"]): (float(line["shared"]), float(line["alone"]))
            for line in read_json_lines(path)
        }
