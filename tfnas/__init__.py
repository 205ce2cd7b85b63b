"""tfnas: compress and search Keras models, measured on the `.tflite` file itself.

Every name here is loaded when it is first used: importing tfnas imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfnas import data, legacy, schedules
    from tfnas.architecture import Architecture, BlockSpec, mobilenet_v2
    from tfnas.bench.adb import benchmark_on_phone
    from tfnas.bench.evaluate import evaluate
    from tfnas.bench.latency import benchmark
    from tfnas.bench.latency_model import LatencyModel
    from tfnas.bench.micro import micro_memory, planned_arena, run_micro
    from tfnas.bench.profile import profile
    from tfnas.bench.quantization_error import quantization_error
    from tfnas.bench.throughput import throughput
    from tfnas.bench.vela import vela
    from tfnas.calibration import recalibrate_batchnorm
    from tfnas.clustering.apply import cluster
    from tfnas.clustering.callback import ClusteringCallback
    from tfnas.clustering.constraint import keep_clusters
    from tfnas.clustering.fold import fold_batchnorm
    from tfnas.compression import Compression
    from tfnas.distillation.distiller import Distiller
    from tfnas.distillation.outputs import teacher_outputs
    from tfnas.distillation.transfers import AttentionTransfer, FeatureHint, RelationalTransfer
    from tfnas.export.artifact import Artifact
    from tfnas.export.micro import check_micro, micro_operators, resolver_code
    from tfnas.export.mixed import mixed_precision
    from tfnas.export.recipes import apply_recipe
    from tfnas.export.saved_model import to_saved_model
    from tfnas.export.sparse import sparse_eligibility
    from tfnas.export.sparsity import file_sparsity
    from tfnas.export.tflite import ConversionError, to_tflite
    from tfnas.factorization.apply import factorize
    from tfnas.loading import load_model
    from tfnas.measurement import Measurement, hypervolume, pareto_front
    from tfnas.muon import Muon
    from tfnas.pipeline.budget import Budget
    from tfnas.pipeline.compress import compress
    from tfnas.pipeline.search import search
    from tfnas.pruning.apply import prune
    from tfnas.pruning.callback import PruningCallback
    from tfnas.pruning.channels.apply import prune_channels
    from tfnas.pruning.channels.iterative import ChannelPruning
    from tfnas.pruning.constraint import keep_zeros
    from tfnas.pruning.sensitivity import sensitivity
    from tfnas.quantization.callbacks import QuantizationSchedule
    from tfnas.quantization.correction import correct_shift
    from tfnas.quantization.qat import calibrate, left_float, quantize_aware, strip
    from tfnas.quantization.roles import register_quantizable
    from tfnas.quantization.spec import QuantSpec
    from tfnas.spaces.compression import CompressionSpace
    from tfnas.spaces.mobilenet_v2 import MobileNetV2Space, StageChoices
    from tfnas.tuners.evolution import EvolutionTuner
    from tfnas.tuners.processes import TrialProcesses
    from tfnas.tuners.random_search import RandomTuner
    from tfnas.tuners.reinforce import ReinforceTuner

__version__ = "0.1.0"

_HOME = {
    "Architecture": "architecture",
    "Artifact": "export.artifact",
    "AttentionTransfer": "distillation.transfers",
    "BlockSpec": "architecture",
    "Budget": "pipeline.budget",
    "ChannelPruning": "pruning.channels.iterative",
    "ClusteringCallback": "clustering.callback",
    "Compression": "compression",
    "CompressionSpace": "spaces.compression",
    "ConversionError": "export.tflite",
    "Distiller": "distillation.distiller",
    "EvolutionTuner": "tuners.evolution",
    "FeatureHint": "distillation.transfers",
    "LatencyModel": "bench.latency_model",
    "Measurement": "measurement",
    "MobileNetV2Space": "spaces.mobilenet_v2",
    "Muon": "muon",
    "PruningCallback": "pruning.callback",
    "QuantSpec": "quantization.spec",
    "QuantizationSchedule": "quantization.callbacks",
    "RandomTuner": "tuners.random_search",
    "ReinforceTuner": "tuners.reinforce",
    "RelationalTransfer": "distillation.transfers",
    "StageChoices": "spaces.mobilenet_v2",
    "TrialProcesses": "tuners.processes",
    "apply_recipe": "export.recipes",
    "benchmark": "bench.latency",
    "benchmark_on_phone": "bench.adb",
    "calibrate": "quantization.qat",
    "check_micro": "export.micro",
    "cluster": "clustering.apply",
    "compress": "pipeline.compress",
    "correct_shift": "quantization.correction",
    "data": "data",
    "evaluate": "bench.evaluate",
    "factorize": "factorization.apply",
    "file_sparsity": "export.sparsity",
    "fold_batchnorm": "clustering.fold",
    "hypervolume": "measurement",
    "keep_clusters": "clustering.constraint",
    "keep_zeros": "pruning.constraint",
    "left_float": "quantization.qat",
    "legacy": "legacy",
    "load_model": "loading",
    "micro_memory": "bench.micro",
    "micro_operators": "export.micro",
    "mixed_precision": "export.mixed",
    "mobilenet_v2": "architecture",
    "pareto_front": "measurement",
    "planned_arena": "bench.micro",
    "profile": "bench.profile",
    "prune": "pruning.apply",
    "prune_channels": "pruning.channels.apply",
    "quantization_error": "bench.quantization_error",
    "quantize_aware": "quantization.qat",
    "recalibrate_batchnorm": "calibration",
    "register_quantizable": "quantization.roles",
    "resolver_code": "export.micro",
    "run_micro": "bench.micro",
    "schedules": "schedules",
    "search": "pipeline.search",
    "sensitivity": "pruning.sensitivity",
    "sparse_eligibility": "export.sparse",
    "strip": "quantization.qat",
    "teacher_outputs": "distillation.outputs",
    "throughput": "bench.throughput",
    "to_saved_model": "export.saved_model",
    "to_tflite": "export.tflite",
    "vela": "bench.vela",
}

__all__ = [
    "Architecture",
    "Artifact",
    "AttentionTransfer",
    "BlockSpec",
    "Budget",
    "ChannelPruning",
    "ClusteringCallback",
    "Compression",
    "CompressionSpace",
    "ConversionError",
    "Distiller",
    "EvolutionTuner",
    "FeatureHint",
    "LatencyModel",
    "Measurement",
    "MobileNetV2Space",
    "Muon",
    "PruningCallback",
    "QuantSpec",
    "QuantizationSchedule",
    "RandomTuner",
    "ReinforceTuner",
    "RelationalTransfer",
    "StageChoices",
    "TrialProcesses",
    "apply_recipe",
    "benchmark",
    "benchmark_on_phone",
    "calibrate",
    "check_micro",
    "cluster",
    "compress",
    "correct_shift",
    "data",
    "evaluate",
    "factorize",
    "file_sparsity",
    "fold_batchnorm",
    "hypervolume",
    "keep_clusters",
    "keep_zeros",
    "left_float",
    "legacy",
    "load_model",
    "micro_memory",
    "micro_operators",
    "mixed_precision",
    "mobilenet_v2",
    "pareto_front",
    "planned_arena",
    "profile",
    "prune",
    "prune_channels",
    "quantization_error",
    "quantize_aware",
    "recalibrate_batchnorm",
    "register_quantizable",
    "resolver_code",
    "run_micro",
    "schedules",
    "search",
    "sensitivity",
    "sparse_eligibility",
    "strip",
    "teacher_outputs",
    "throughput",
    "to_saved_model",
    "to_tflite",
    "vela",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    module = importlib.import_module(f"{__name__}.{home}")
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
