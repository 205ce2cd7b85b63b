"""The public names of tfnas, for type checkers and for `__init__.py`, which reads them from here.

This is their only list: to export a name, import it here, `as` itself.
"""

from tfnas import data as data
from tfnas import legacy as legacy
from tfnas import schedules as schedules
from tfnas.clustering.batchnorm_folding import fold_batchnorm as fold_batchnorm
from tfnas.clustering.cluster import cluster as cluster
from tfnas.clustering.clustering_callback import ClusteringCallback as ClusteringCallback
from tfnas.clustering.shared_values import keep_clusters as keep_clusters
from tfnas.compression.budget import Budget as Budget
from tfnas.compression.fine_tune_settings import FineTuneSettings as FineTuneSettings
from tfnas.distillation.cached_teacher import teacher_outputs as teacher_outputs
from tfnas.distillation.distiller import Distiller as Distiller
from tfnas.distillation.feature_losses import AttentionTransfer as AttentionTransfer
from tfnas.distillation.feature_losses import FeatureHint as FeatureHint
from tfnas.distillation.feature_losses import RelationalTransfer as RelationalTransfer
from tfnas.graph.batchnorm import recalibrate_batchnorm as recalibrate_batchnorm
from tfnas.graph.custom_loop import CustomLoop as CustomLoop
from tfnas.graph.functional_form import as_functional as as_functional
from tfnas.graph.preprocessing import split_preprocessing as split_preprocessing
from tfnas.graph.registered_layers import register_layer as register_layer
from tfnas.jobs.compress import compress as compress
from tfnas.jobs.search_job import search as search
from tfnas.jobs.technique_job import run_techniques as run_techniques
from tfnas.loading import load_model as load_model
from tfnas.low_rank.factorize import factorize as factorize
from tfnas.measure.latency import benchmark as benchmark
from tfnas.measure.latency_model.latency_model import LatencyModel as LatencyModel
from tfnas.measure.measurement import Measurement as Measurement
from tfnas.measure.measurement import hypervolume as hypervolume
from tfnas.measure.measurement import pareto_front as pareto_front
from tfnas.measure.profile import profile as profile
from tfnas.measure.quantization_debugger.quantization_error import (
    quantization_error as quantization_error,
)
from tfnas.measure.throughput import throughput as throughput
from tfnas.measure.verification.bounds import Bound as Bound
from tfnas.measure.verification.verify import Verification as Verification
from tfnas.measure.verification.verify import verify as verify
from tfnas.nas.algorithm_tuners import EvolutionTuner as EvolutionTuner
from tfnas.nas.algorithm_tuners import RandomTuner as RandomTuner
from tfnas.nas.algorithm_tuners import ReinforceTuner as ReinforceTuner
from tfnas.nas.samplers.evolution import EvolutionSampler as EvolutionSampler
from tfnas.nas.samplers.reinforce import ReinforceSampler as ReinforceSampler
from tfnas.nas.supernet.supernet_config import SupernetConfig as SupernetConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner as SupernetTuner
from tfnas.nas.tuner_config import TunerConfig as TunerConfig
from tfnas.optimizers import Muon as Muon
from tfnas.pruning.mask_constraint import keep_zeros as keep_zeros
from tfnas.pruning.prune import prune as prune
from tfnas.pruning.pruning_callback import PruningCallback as PruningCallback
from tfnas.pruning.sensitivity import sensitivity as sensitivity
from tfnas.pruning.structured.channel_importance import Importance as Importance
from tfnas.pruning.structured.iterative import ChannelPruning as ChannelPruning
from tfnas.pruning.structured.prune_channels import prune_channels as prune_channels
from tfnas.quantization.bias_correction import correct_bias as correct_bias
from tfnas.quantization.quantization_schedule import QuantizationSchedule as QuantizationSchedule
from tfnas.quantization.quantize_aware import calibrate as calibrate
from tfnas.quantization.quantize_aware import quantize_aware as quantize_aware
from tfnas.quantization.quantize_aware import strip_quantization as strip_quantization
from tfnas.quantization.quantize_aware import unquantized_layers as unquantized_layers
from tfnas.quantization.smooth_activations import smooth_activations as smooth_activations
from tfnas.quantization.spec import QuantSpec as QuantSpec
from tfnas.quantization.weight_equalization import equalize_weights as equalize_weights
from tfnas.runtime.helper_process import isolated as isolated
from tfnas.runtime.worker_processes import TrialProcesses as TrialProcesses
from tfnas.search_space.architecture import Architecture as Architecture
from tfnas.search_space.architecture import mobilenet_v2 as mobilenet_v2
from tfnas.search_space.block_spec import BlockSpec as BlockSpec
from tfnas.search_space.compression import Compression as Compression
from tfnas.search_space.compression_choices import CompressionSpace as CompressionSpace
from tfnas.search_space.fixed_layers import FixedLayers as FixedLayers
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space as MobileNetV2Space
from tfnas.search_space.stage_choices import StageChoices as StageChoices
from tfnas.targets.android import benchmark_on_phone as benchmark_on_phone
from tfnas.targets.device import Device as Device
from tfnas.targets.ethos_u import vela as vela
from tfnas.targets.patch_based import PatchReport as PatchReport
from tfnas.targets.patch_based import patch_based as patch_based
from tfnas.targets.readiness import Readiness as Readiness
from tfnas.targets.readiness import readiness as readiness
from tfnas.targets.tflite_micro.interpreter import micro_memory as micro_memory
from tfnas.targets.tflite_micro.interpreter import planned_arena as planned_arena
from tfnas.targets.tflite_micro.interpreter import run_micro as run_micro
from tfnas.tasks import metrics as metrics
from tfnas.tasks.assessment import Metric as Metric
from tfnas.tasks.compiled_task import CompiledTask as CompiledTask
from tfnas.tasks.evaluation import evaluate as evaluate
from tfnas.tasks.judged_parts import Evaluation as Evaluation
from tfnas.tasks.task import Task as Task
from tfnas.tflite.artifact import Artifact as Artifact
from tfnas.tflite.conversion_error import ConversionError as ConversionError
from tfnas.tflite.convert import to_tflite as to_tflite
from tfnas.tflite.file_sparsity import file_sparsity as file_sparsity
from tfnas.tflite.file_stream import FileStream as FileStream
from tfnas.tflite.mixed_precision import mixed_precision as mixed_precision
from tfnas.tflite.operator_rules.tflite_micro import check_micro as check_micro
from tfnas.tflite.operator_rules.tflite_micro import micro_operators as micro_operators
from tfnas.tflite.operator_rules.tflite_micro import resolver_code as resolver_code
from tfnas.tflite.quantizer_recipes import apply_recipe as apply_recipe
from tfnas.tflite.saved_model import to_saved_model as to_saved_model
from tfnas.tflite.sparse_eligibility import sparse_eligibility as sparse_eligibility

__version__: str
