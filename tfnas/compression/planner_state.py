"""The states of the plan of `compress`: frozen records, which a test can write by hand.

A state holds what the job was told, what it knows so far, and its phase. There is a record for
each phase, with what this phase alone has to remember. :mod:`tfnas.compression.planner` goes from
one state to the next.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from tfnas.compression.budget import QUALITY_LIMITS, Budget
from tfnas.compression.effort import Effort
from tfnas.compression.known_file import KnownFile
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.targets_from_budget import FEWER_BITS
from tfnas.compression.tolerance import OF_ACCURACY, Tolerance

AttemptPart = Literal[
    "size", "int8", "float", "longer", "aware", "longer aware", "fewer bits", "zeros", "ended"
]
LATENCY_NOISE = 0.03  # fraction of a limit: files are timed again at the end, side by side


@dataclasses.dataclass(frozen=True)
class Attempt:
    """Steps converted to int8, then the training that may win back what they lost.

    Args:
        steps: The steps; longer training becomes one of them where it is tried.
        why: The reason for the steps.
        enough: Drop that is not worth a training, within the budget.
        sparsities: Fractions of zeros that may still be tried, in turn.
        part: The part that is next: "size", the bytes of the file, without any training; "int8",
            converted without training for it; "float", with float activations, where int8 loses
            far too much; "longer" training before; "aware", quantization-aware training; "longer
            aware", both; "fewer bits", 4-bit weights; "zeros", pruned and clustered weights;
            "ended".
        best: The file that loses least so far; None: no part could be converted. One that meets all
            limits comes before those that don't.
        low_bits: The file with 4-bit weights, if it meets all limits.
        too_large: The file that exceeds limits which no training can meet: the attempt ended there.
        size: The file without training, of which only the size is known: the attempt ended there.
        narrow: Whether the steps keep too many weights for int8, and 4-bit weights are sized.
        trained_form: Whether sizes are those of files trained for int8; None: by the settings.
            False: such files are known to be far larger, so that none is trained.
        trained_fits: Whether the file trained for int8 is known to keep the limits on bytes, which
            the one without training may exceed: it has scales for each channel of dense layers.
    """

    steps: tuple[RecipeStep, ...]
    why: str
    enough: float = 0.0
    sparsities: tuple[float, ...] = ()
    part: AttemptPart = "int8"
    best: KnownFile | None = None
    low_bits: KnownFile | None = None
    too_large: KnownFile | None = None
    size: KnownFile | None = None
    narrow: bool = False
    trained_form: bool | None = None
    trained_fits: bool = False

    @property
    def result(self) -> KnownFile | None:
        """The file that the amount is judged by; None where the steps failed."""
        return self.low_bits or self.best


@dataclasses.dataclass(frozen=True)
class TryFormats:
    """Number formats of the uncompressed model, without training.

    Args:
        waiting: The formats that are still to be tried.
        later: Whether they are those that can't meet the budget, tried since int8 failed.
    """

    waiting: tuple[str, ...]
    later: bool = False


@dataclasses.dataclass(frozen=True)
class TrainInt8:
    """Quantization-aware training of the uncompressed model for int8."""


@dataclasses.dataclass(frozen=True)
class TryFewerBits:
    """The uncompressed model with 4-bit weights, trained, where that may meet all limits.

    Args:
        measured: Whether the bytes of the file were measured, without any training.
    """

    measured: bool = False


@dataclasses.dataclass(frozen=True)
class ChooseAmount:
    """Between two amounts of a technique.

    Args:
        technique: Name of the technique.
        scaled: The step that later amounts are scaled from.
        why: The reason for the next amount.
        waiting: Steps that are tried next, in turn.
        demanded: Steps that the exceeded limits demand.
        too_large: The files that were too large, in turn.
        lossy: Largest fraction of the weights whose file lost too much; 0: none did.
        tried: Fraction -> whether its file was good enough.
        left: Number of amounts that may still be tried, besides `waiting`.
        met: Whether a file of this technique meets all limits.
        others: Techniques that come after it.
        sizes: The files of which only the size is known, in turn.
        landed: Steps that are trained for without measuring the size first.
        narrow: Steps that are for 4-bit weights, where sizes are measured.
        refused: Number of steps that were not possible.
        trained_form: Whether sizes are those of files trained for int8; None: by the settings.
            True: also since the amount that fits without this training loses too much. False:
            since files trained for int8 hold far more.
    """

    technique: str
    scaled: RecipeStep
    why: str
    waiting: tuple[RecipeStep, ...] = ()
    demanded: tuple[RecipeStep, ...] = ()
    too_large: tuple[KnownFile, ...] = ()
    lossy: float = 0.0
    tried: Mapping[float, bool] = dataclasses.field(default_factory=lambda: {1.0: True})
    left: int = 0
    met: bool = False
    others: tuple[str, ...] = ()
    sizes: tuple[KnownFile, ...] = ()
    landed: tuple[RecipeStep, ...] = ()
    narrow: tuple[RecipeStep, ...] = ()
    refused: int = 0
    trained_form: bool | None = None


@dataclasses.dataclass(frozen=True)
class TryAmount:
    """One amount of a technique.

    Args:
        amounts: What is known of the technique's other amounts.
        step: The technique with this amount.
        attempt: What is tried with it.
    """

    amounts: ChooseAmount
    step: RecipeStep
    attempt: Attempt


@dataclasses.dataclass(frozen=True)
class TryZeros:
    """Pruned and clustered weights of the otherwise uncompressed model, for gzipped bytes.

    Args:
        sparsities: Fractions of zeros that are still to be tried, in turn.
    """

    sparsities: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TryMore:
    """Techniques that the plan knows by name and amount alone.

    Args:
        waiting: Steps that are still to be tried.
    """

    waiting: tuple[RecipeStep, ...]


@dataclasses.dataclass(frozen=True)
class Finished:
    """Nothing is left to be tried."""


Phase = (
    TryFormats | TrainInt8 | TryFewerBits | ChooseAmount | TryAmount | TryZeros | TryMore | Finished
)


@dataclasses.dataclass(frozen=True)
class PlannerState:
    """All that decides which recipes `compress` tries from here on.

    Args:
        budget: The limits.
        effort: How much is tried.
        settings: Settings from the analysis of the model.
        phase: What is being tried, with what this phase has to remember.
        files: The uncompressed model in each number format that could be converted, without
            training.
        trained: The uncompressed model in int8 after quantization-aware training.
        met: Whether any file so far meets all limits.
        asked: The recipe whose outcome is awaited; None: none is.
        tolerance: Which drops training is worth its time for.
    """

    budget: Budget
    effort: Effort
    settings: PlanSettings
    phase: Phase
    files: tuple[KnownFile, ...] = ()
    trained: KnownFile | None = None
    met: bool = False
    asked: Recipe | None = None
    tolerance: Tolerance = OF_ACCURACY

    def converted(self, mode: str) -> KnownFile | None:
        """Returns the uncompressed model in one of the first formats, without training.

        Args:
            mode: The number format.

        Returns:
            The file; None where it was not tried, or tried only since int8 failed, or failed.
        """
        modes = self.settings.formats
        return next((f for f in self.files if f.recipe.mode == mode and mode in modes), None)

    @property
    def known(self) -> tuple[KnownFile, ...]:
        """The uncompressed model in int8 and with fewer bits, as far as they were converted.

        Targets are computed from these; there are none without int8. Fewer bits that save no
        bytes are left out: layers that stay in float32 there may make the file larger.
        """
        base = self.trained or self.converted("int8")
        low_bits = self.converted(FEWER_BITS)
        if base is None:
            return ()
        return (base,) if low_bits is None or self._useless else (base, low_bits)

    @property
    def _useless(self) -> KnownFile | None:
        """The file with fewer bits where it saves no bytes beside int8; None where it does."""
        base, low_bits = self.converted("int8"), self.converted(FEWER_BITS)
        if base is None or low_bits is None or low_bits.costs.bytes < base.costs.bytes:
            return None
        return low_bits

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the files so far rule out, in sentences; later states only add to them."""
        base, useless = self.converted("int8"), self._useless
        lines = []
        if base is not None and useless is not None:
            lines.append(
                f"{FEWER_BITS} takes {useless.costs.bytes:,} bytes, no fewer than the "
                f"{base.costs.bytes:,} of int8, since some layers stay in float32 with it: "
                "nothing is trained for 4-bit weights"
            )
        limit = self.budget.max_bytes
        if limit is None or self.effort.epochs or not self.files:
            return tuple(lines)
        least = min(self.files, key=lambda file: file.costs.bytes)
        if least.costs.bytes > limit and not isinstance(self.phase, TryFormats):
            lines.append(
                f"the smallest number format, {least.recipe}, takes {least.costs.bytes:,} bytes, "
                f"above max_bytes {limit:,}; effort normal also removes weights"
            )
        return tuple(lines)

    @property
    def rounding_loses(self) -> bool:
        """Whether int8 loses more without training than is worth keeping."""
        base, allowed = self.converted("int8"), self.allowed_drop
        allowed = math.inf if allowed is None else allowed
        enough = min(self.tolerance.little, allowed) if self.settings.integers else allowed
        return base is None or base.costs.drop > enough

    @property
    def allowed_drop(self) -> float | None:
        """Largest drop within the limits on quality, in the metric's unit; None: any."""
        return self.tolerance.allowed_by(self.budget)

    def missed(self, file: KnownFile) -> float:
        """Returns the drop of a file beyond the limit, below 0 within it.

        Args:
            file: The file.
        """
        allowed = self.allowed_drop
        return -math.inf if allowed is None else file.costs.drop - allowed

    def accurate(self, file: KnownFile | None) -> bool:
        """Returns whether there is a file, and its drop is within the limit.

        Args:
            file: The file; None where a recipe failed.
        """
        return file is not None and self.missed(file) <= 0

    def meets(self, file: KnownFile | None) -> bool:
        """Returns whether there is a file, and it meets all limits.

        Args:
            file: The file; None where a recipe failed.
        """
        if file is None or file.recipe.untrained:
            return False
        return not self.budget.excesses(file.costs)

    def exceeded(self, file: KnownFile) -> dict[str, float]:
        """Returns the exceeded limits that no training of this file can meet, and by how much.

        Its quality can be trained, and gzipped bytes fall with zeros. A latency that is slightly
        too long may be noise.

        Args:
            file: The file.
        """
        found = self.budget.excesses(file.costs)
        for name in (*QUALITY_LIMITS, "max_gzip_bytes"):
            found.pop(name, None)
        if file.recipe.untrained or found.get("max_latency_ratio", math.inf) <= LATENCY_NOISE:
            found.pop("max_latency_ratio", None)  # it was not timed, or this may be noise
        return found

    def hopeless(self, file: KnownFile) -> bool:
        """Returns whether a file loses more than longer training wins back.

        Args:
            file: The file.
        """
        return self.missed(file) > self.tolerance.hopeless
