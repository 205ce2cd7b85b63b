"""tfnas: compress and search Keras models, measured on the `.tflite` file itself.

Every name here is loaded when it is first used: importing tfnas imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfnas import data
    from tfnas.architecture import Architecture, BlockSpec, mobilenet_v2
    from tfnas.bench.evaluate import evaluate
    from tfnas.bench.latency import benchmark
    from tfnas.bench.profile import profile
    from tfnas.export.artifact import Artifact
    from tfnas.export.sparse import sparse_eligibility
    from tfnas.export.tflite import ConversionError, to_tflite
    from tfnas.measurement import Measurement, hypervolume, pareto_front
    from tfnas.pipeline.search import search
    from tfnas.quantization.spec import QuantSpec
    from tfnas.spaces.mobilenet_v2 import MobileNetV2Space, StageChoices
    from tfnas.tuners.evolution import EvolutionTuner

__version__ = "0.1.0"

_HOME = {
    "Architecture": "architecture",
    "Artifact": "export.artifact",
    "BlockSpec": "architecture",
    "ConversionError": "export.tflite",
    "EvolutionTuner": "tuners.evolution",
    "Measurement": "measurement",
    "MobileNetV2Space": "spaces.mobilenet_v2",
    "QuantSpec": "quantization.spec",
    "StageChoices": "spaces.mobilenet_v2",
    "benchmark": "bench.latency",
    "data": "data",
    "evaluate": "bench.evaluate",
    "hypervolume": "measurement",
    "mobilenet_v2": "architecture",
    "pareto_front": "measurement",
    "profile": "bench.profile",
    "search": "pipeline.search",
    "sparse_eligibility": "export.sparse",
    "to_tflite": "export.tflite",
}

__all__ = [
    "Architecture",
    "Artifact",
    "BlockSpec",
    "ConversionError",
    "EvolutionTuner",
    "Measurement",
    "MobileNetV2Space",
    "QuantSpec",
    "StageChoices",
    "benchmark",
    "data",
    "evaluate",
    "hypervolume",
    "mobilenet_v2",
    "pareto_front",
    "profile",
    "search",
    "sparse_eligibility",
    "to_tflite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = module if name == "data" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
