"""tfnas: compress and search Keras models, measured on the `.tflite` file itself.

Every name here is loaded when it is first used: importing tfnas imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfnas import data, legacy, schedules
    from tfnas.clustering.batchnorm_folding import fold_batchnorm
    from tfnas.clustering.cluster import cluster
    from tfnas.clustering.clustering_callback import ClusteringCallback
    from tfnas.clustering.shared_values import keep_clusters
    from tfnas.compression.budget import Budget
    from tfnas.distillation.cached_teacher import teacher_outputs
    from tfnas.distillation.distiller import Distiller
    from tfnas.distillation.feature_losses import AttentionTransfer, FeatureHint, RelationalTransfer
    from tfnas.graph.batchnorm import recalibrate_batchnorm
    from tfnas.jobs.compress import compress
    from tfnas.jobs.search_job import search
    from tfnas.loading import load_model
    from tfnas.low_rank.factorize import factorize
    from tfnas.measure.accuracy import evaluate
    from tfnas.measure.latency import benchmark
    from tfnas.measure.latency_model.latency_model import LatencyModel
    from tfnas.measure.measurement import Measurement, hypervolume, pareto_front
    from tfnas.measure.profile import profile
    from tfnas.measure.quantization_debugger.quantization_error import quantization_error
    from tfnas.measure.throughput import throughput
    from tfnas.nas.samplers.evolution import EvolutionTuner
    from tfnas.nas.samplers.random_search import RandomTuner
    from tfnas.nas.samplers.reinforce import ReinforceTuner
    from tfnas.optimizers import Muon
    from tfnas.pruning.mask_constraint import keep_zeros
    from tfnas.pruning.prune import prune
    from tfnas.pruning.pruning_callback import PruningCallback
    from tfnas.pruning.sensitivity import sensitivity
    from tfnas.pruning.structured.iterative import ChannelPruning
    from tfnas.pruning.structured.prune_channels import prune_channels
    from tfnas.quantization.bias_correction import correct_bias
    from tfnas.quantization.layer_registry import register_quantizable
    from tfnas.quantization.quantization_schedule import QuantizationSchedule
    from tfnas.quantization.quantize_aware import (
        calibrate,
        quantize_aware,
        strip_quantization,
        unquantized_layers,
    )
    from tfnas.quantization.spec import QuantSpec
    from tfnas.runtime.worker_processes import TrialProcesses
    from tfnas.search_space.architecture import Architecture, BlockSpec, mobilenet_v2
    from tfnas.search_space.compression import Compression
    from tfnas.search_space.compression_choices import CompressionSpace
    from tfnas.search_space.mobilenet_v2 import MobileNetV2Space, StageChoices
    from tfnas.targets.android import benchmark_on_phone
    from tfnas.targets.ethos_u import vela
    from tfnas.targets.tflite_micro.interpreter import micro_memory, planned_arena, run_micro
    from tfnas.tflite.artifact import Artifact
    from tfnas.tflite.convert import ConversionError, to_tflite
    from tfnas.tflite.file_sparsity import file_sparsity
    from tfnas.tflite.mixed_precision import mixed_precision
    from tfnas.tflite.operator_rules.tflite_micro import check_micro, micro_operators, resolver_code
    from tfnas.tflite.quantizer_recipes import apply_recipe
    from tfnas.tflite.saved_model import to_saved_model
    from tfnas.tflite.sparse_eligibility import sparse_eligibility

__version__ = "0.1.0"

_HOME = {
    "Architecture": "search_space.architecture",
    "Artifact": "tflite.artifact",
    "AttentionTransfer": "distillation.feature_losses",
    "BlockSpec": "search_space.architecture",
    "Budget": "compression.budget",
    "ChannelPruning": "pruning.structured.iterative",
    "ClusteringCallback": "clustering.clustering_callback",
    "Compression": "search_space.compression",
    "CompressionSpace": "search_space.compression_choices",
    "ConversionError": "tflite.convert",
    "Distiller": "distillation.distiller",
    "EvolutionTuner": "nas.samplers.evolution",
    "FeatureHint": "distillation.feature_losses",
    "LatencyModel": "measure.latency_model.latency_model",
    "Measurement": "measure.measurement",
    "MobileNetV2Space": "search_space.mobilenet_v2",
    "Muon": "optimizers",
    "PruningCallback": "pruning.pruning_callback",
    "QuantSpec": "quantization.spec",
    "QuantizationSchedule": "quantization.quantization_schedule",
    "RandomTuner": "nas.samplers.random_search",
    "ReinforceTuner": "nas.samplers.reinforce",
    "RelationalTransfer": "distillation.feature_losses",
    "StageChoices": "search_space.mobilenet_v2",
    "TrialProcesses": "runtime.worker_processes",
    "apply_recipe": "tflite.quantizer_recipes",
    "benchmark": "measure.latency",
    "benchmark_on_phone": "targets.android",
    "calibrate": "quantization.quantize_aware",
    "check_micro": "tflite.operator_rules.tflite_micro",
    "cluster": "clustering.cluster",
    "compress": "jobs.compress",
    "correct_bias": "quantization.bias_correction",
    "data": "data",
    "evaluate": "measure.accuracy",
    "factorize": "low_rank.factorize",
    "file_sparsity": "tflite.file_sparsity",
    "fold_batchnorm": "clustering.batchnorm_folding",
    "hypervolume": "measure.measurement",
    "keep_clusters": "clustering.shared_values",
    "keep_zeros": "pruning.mask_constraint",
    "unquantized_layers": "quantization.quantize_aware",
    "legacy": "legacy",
    "load_model": "loading",
    "micro_memory": "targets.tflite_micro.interpreter",
    "micro_operators": "tflite.operator_rules.tflite_micro",
    "mixed_precision": "tflite.mixed_precision",
    "mobilenet_v2": "search_space.architecture",
    "pareto_front": "measure.measurement",
    "planned_arena": "targets.tflite_micro.interpreter",
    "profile": "measure.profile",
    "prune": "pruning.prune",
    "prune_channels": "pruning.structured.prune_channels",
    "quantization_error": "measure.quantization_debugger.quantization_error",
    "quantize_aware": "quantization.quantize_aware",
    "recalibrate_batchnorm": "graph.batchnorm",
    "register_quantizable": "quantization.layer_registry",
    "resolver_code": "tflite.operator_rules.tflite_micro",
    "run_micro": "targets.tflite_micro.interpreter",
    "schedules": "schedules",
    "search": "jobs.search_job",
    "sensitivity": "pruning.sensitivity",
    "sparse_eligibility": "tflite.sparse_eligibility",
    "strip_quantization": "quantization.quantize_aware",
    "teacher_outputs": "distillation.cached_teacher",
    "throughput": "measure.throughput",
    "to_saved_model": "tflite.saved_model",
    "to_tflite": "tflite.convert",
    "vela": "targets.ethos_u",
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
    "correct_bias",
    "data",
    "evaluate",
    "factorize",
    "file_sparsity",
    "fold_batchnorm",
    "hypervolume",
    "keep_clusters",
    "keep_zeros",
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
    "strip_quantization",
    "teacher_outputs",
    "throughput",
    "to_saved_model",
    "to_tflite",
    "unquantized_layers",
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
