"""The groups of public names on the page of the API reference, which docs/conf.py reads."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Group:
    """Public names for one purpose.

    Args:
        title: Its heading.
        purpose: What the names are for, in a sentence.
        names: The names, those that most users need first.
    """

    title: str
    purpose: str
    names: tuple[str, ...]


GROUPS = (
    Group(
        "Whole jobs",
        "One call trains, converts, measures and leaves a folder with a report.",
        ("compress", "search", "run_techniques", "Budget", "FineTuneSettings"),
    ),
    Group(
        "Files",
        "A Keras model becomes a checked `.tflite` file, and a file becomes another one.",
        (
            *("to_tflite", "QuantSpec", "Artifact", "FileStream", "to_saved_model"),
            *("mixed_precision", "apply_recipe", "patch_based", "PatchReport", "for_browser"),
            "ConversionError",
        ),
    ),
    Group(
        "Measurements",
        "What a model or a file costs, and how good its answers are.",
        (
            *("verify", "Verification", "Bound", "evaluate", "Evaluation", "benchmark"),
            *("throughput", "profile", "quantization_error", "file_sparsity"),
            *("sparse_eligibility", "Measurement", "LatencyModel", "pareto_front", "hypervolume"),
        ),
    ),
    Group(
        "Devices",
        "Whether a phone, a browser, a microcontroller or an NPU runs a file, and how fast.",
        (
            *("readiness", "Readiness", "Device", "TimingDevice", "timing_device", "SshDevice"),
            *("AdbDevice", "BrowserDevice", "benchmark_on_phone", "check_micro", "run_micro"),
            *("micro_memory", "micro_operators", "planned_arena", "resolver_code", "vela"),
        ),
    ),
    Group(
        "Zeros",
        "Weights are set to zero, and stay zero in training.",
        ("prune", "PruningCallback", "keep_zeros", "sensitivity", "schedules"),
    ),
    Group(
        "Channels",
        "Whole channels are removed, so that a model is smaller and faster anywhere.",
        ("prune_channels", "ChannelPruning", "Importance"),
    ),
    Group(
        "Shared values and low rank",
        "Kernels get a few shared values, or become products of smaller ones.",
        ("cluster", "ClusteringCallback", "keep_clusters", "factorize"),
    ),
    Group(
        "Integers",
        "A model is trained for integers, or prepared for them without training.",
        (
            *("quantize_aware", "calibrate", "QuantizationSchedule", "strip_quantization"),
            *("unquantized_layers", "correct_bias", "equalize_weights", "smooth_activations"),
        ),
    ),
    Group(
        "Distillation",
        "A small model learns from a large one.",
        (
            "Distiller",
            "teacher_outputs",
            "FeatureHint",
            "AttentionTransfer",
            "AttentionMapTransfer",
            "attention_map_transfers",
            "RelationalTransfer",
        ),
    ),
    Group(
        "Search",
        "Tuners with the API of keras_tuner, whose trials are measured files.",
        (
            *("EvolutionTuner", "RandomTuner", "ReinforceTuner", "SupernetTuner", "TunerConfig"),
            *("SupernetConfig", "EvolutionSampler", "ReinforceSampler", "TrialProcesses"),
        ),
    ),
    Group(
        "Search spaces",
        "What a search chooses from.",
        (
            *("MobileNetV2Space", "Architecture", "BlockSpec", "StageChoices", "mobilenet_v2"),
            *("CompressionSpace", "Compression", "FixedLayers"),
        ),
    ),
    Group(
        "Data, tasks and models",
        "What goes in: data of any kind, what a model is for, and models of your own.",
        (
            *("data", "load_model", "Task", "CompiledTask", "Metric", "metrics", "CustomLoop"),
            *("Muon", "as_functional", "register_layer", "split_preprocessing", "fold_batchnorm"),
            *("recalibrate_batchnorm", "isolated", "legacy"),
        ),
    ),
)
