"""The one file that imports tfnas, and that uses words which a move may change.

After a move this file follows it, and no other file of the package does: what has a new name
here keeps its old name for the entries.
"""

import dataclasses
import pathlib
import tempfile
import unittest.mock

import keras_tuner as kt
import numpy as np

import tfnas
from tfnas import data
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.candidate_store import Candidate, beaten, best_for_budget
from tfnas.compression.candidate_store import front as pareto
from tfnas.compression.effort import EFFORTS
from tfnas.compression.file_comparison_table import compare_files
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.layer_costs import file_layers
from tfnas.compression.model_analysis import DENSE, LayerAnalysis, ModelAnalysis, analyze_model
from tfnas.compression.plan_settings import decide_plan
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.targets_from_budget import steps_for_budget, with_fewer_weights
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, run_row
from tfnas.compression.techniques.quantization_aware import QatSettings
from tfnas.compression.techniques.registry import technique as technique_named
from tfnas.compression.trial_compression import CompressedTraining, epochs_of
from tfnas.data.augmentation import AugmentedImages
from tfnas.distillation import losses
from tfnas.jobs.compress_run import ORIGINAL
from tfnas.measure.accuracy import paired_difference, score
from tfnas.measure.agreement import agreement as agreement_of
from tfnas.measure.latency_model import profiling
from tfnas.measure.latency_model.features import macs, network_features
from tfnas.measure.latency_model.regression import LatencyErrors, cross_validated, fit_costs
from tfnas.measure.measurement import Latency, Measurement, Score
from tfnas.measure.throughput import Throughput
from tfnas.nas.latency_prediction import PredictionErrors
from tfnas.nas.measured_trial import MeasuredTrial as Trial
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.samplers.pareto_selection import best_first, crowding, pareto_ranks
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.variation import GroupCrossover
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import ReportRow, SearchResult
from tfnas.nas.surrogate.gaussian_process import Surrogate
from tfnas.nas.weight_inheritance import inherit_weights
from tfnas.quantization.spec import MODES  # noqa: F401
from tfnas.reports import compress_report as report
from tfnas.reports import search_report as search_texts
from tfnas.schedules import as_schedule
from tfnas.table import table
from tfnas.targets.device import Device
from tfnas.tasks.assessment import ACCURACY, Assessment
from tfnas.tasks.image_classes import ImageClasses
from tfnas.tflite.network_operators import operators_of_architecture

PACKAGE = pathlib.Path(tfnas.__file__).resolve().parent

# --- networks and files


def image_space(shape, classes, preset, **options):
    """Returns the space of MobileNetV2-like networks."""
    return tfnas.MobileNetV2Space(shape, classes, preset, **options)


def to_file(model, mode, x=None, **options):
    """Returns a model's file."""
    return tfnas.to_tflite(model, mode, x, **options)


def minified(file):
    """Returns a file in fewer bytes."""
    return file.minified()


def spec(**fields):
    """Returns a quantization specification."""
    return tfnas.QuantSpec(**fields)


def quantize_aware(model, mode, x=None):
    """Returns a model that trains as its integer file computes."""
    return tfnas.quantize_aware(model, mode, x)


def float_again(model):
    """Returns a plain float model with the weights of a quantization-aware one."""
    return tfnas.strip_quantization(model)


def unquantized(model):
    """Returns the names and kinds of the calls that stay float."""
    return [[found.name, found.kind] for found in tfnas.unquantized_layers(model)]


def freezing(start, freeze):
    """Returns the callback that rounds from one epoch on and holds ranges from another."""
    return tfnas.QuantizationSchedule(start, freeze)


def correct_bias(model, original, x):
    """Corrects what rounding has moved, in place; returns the number of layers."""
    return tfnas.correct_bias(model, original, x)


def mixed(model, size, x, **options):
    """Returns (file, each layer's format, each format's effects) of a mixed precision."""
    file, found = tfnas.mixed_precision(model, size, x, **options)
    formats = [[layer.name, layer.chosen, layer.savings, layer.effects] for layer in found.layers]
    return file, formats, [found.predicted, found.measured]


def quantization_error(model, file, x):
    """Returns what quantization adds, an operator a row."""
    found = tfnas.quantization_error(model, file, x, keep_float=(1,))
    rows = [[r.layer, r.dtype, r.shape, r.noise, r.added, r.saturation] for r in found.layers]
    return [rows, [[f.layers, f.size] for f in found.kept_float]]


# --- files


def save_c(file, path):
    """Writes a file as C source."""
    return file.save_c(path, "net")


def described(file, **fields):
    """Returns a file with metadata."""
    return file.with_metadata(**fields)


def description(file):
    """Returns the values of a file's metadata."""
    found = file.metadata
    return [found.description, found.labels, found.mean, found.std, found.author, found.version]


def sparsity(file):
    """Returns the zeros of a file's kernels, and whether sparse kernels can run it."""
    found = tfnas.file_sparsity(file)
    rows = [[k.operator, k.dtype, k.shape, k.weights, k.zeros, k.sparse] for k in found.kernels]
    return [rows, found.size, found.verdict.eligible, tfnas.sparse_eligibility(file).eligible]


def micro(file):
    """Returns what a file needs of TFLite Micro."""
    tfnas.check_micro(file)
    code = tfnas.resolver_code(file)
    return [tfnas.micro_operators(file), code.count("Add"), tfnas.planned_arena(file)]


# --- pruning, clustering, low rank


def pruning_callback(schedule, **options):
    """Returns the callback that prunes while training."""
    return tfnas.PruningCallback(schedule, **options)


def clustering_callback(clusters, exclude=(), **options):
    """Returns the callback that clusters while training."""
    return tfnas.ClusteringCallback(clusters, exclude=exclude, **options)


def prune(model, *args, **options):
    """Returns (pruned copy, [[layer, weights, zeros]])."""
    copy, found = tfnas.prune(model, *args, **options)
    return copy, [[kernel.name, kernel.weights, kernel.zeros] for kernel in found.kernels]


def sensitivity(model, evaluate, total, **options):
    """Returns the qualities of a model with one layer pruned, and the ratios for a total."""
    found = tfnas.sensitivity(model, evaluate, (0.3, 0.6, 0.9), **options)
    return [found.losses(), found.suggest(total)]


# Reasons in a report, and the words that they had before: hashes are of numbers and of reasons.
CHANNEL_REASONS = {
    "is computed over all channels": "weighs channels against each other",
    "it is excluded": "it is ignored",
}


def prune_channels(model, ratio=None, exclude=(), **options):
    """Returns (smaller model, what went of each group, costs)."""
    smaller, found = tfnas.prune_channels(model, ratio, exclude=exclude, **options)
    fields = found.as_dict()
    for group in fields["groups"]:
        group.pop("removed", None)  # newer than the oldest golden values
        for text, before in CHANNEL_REASONS.items():
            group["reason"] = group["reason"].replace(text, before)
    return smaller, [fields[key] for key in sorted(fields)]


def prune_channels_in_steps(model, share, **options):
    """Returns the model of several steps."""
    return tfnas.ChannelPruning(model, share, **options).run()[0]


def cluster(model, clusters, exclude=(), **options):
    """Returns (clustered copy, [[values after, error, bytes, coded, Huffman]])."""
    copy, found = tfnas.cluster(model, clusters, exclude=exclude, **options)
    return copy, [[k.name, k.after, k.error, k.bytes, k.coded, k.huffman] for k in found.kernels]


def factorize(model, exclude=(), **options):
    """Returns (model of factors, [[layer, method, ranks, MACs, error]])."""
    thin, found = tfnas.factorize(model, exclude=exclude, **options)
    return thin, [[k.name, k.method, k.ranks, k.macs, k.error] for k in found.layers]


def fold_batchnorm(model):
    """Returns (folded copy, the layers folded into)."""
    return tfnas.fold_batchnorm(model)


def measure_batchnorm(model, x):
    """Measures the statistics of normalizations anew, in place."""
    tfnas.recalibrate_batchnorm(model, x)


def polynomial(final, end, initial=0.0, **options):
    """Returns the schedule of Zhu and Gupta."""
    return tfnas.schedules.polynomial(final, end, initial_sparsity=initial, **options)


def schedule_values(schedule, positions):
    """Returns a schedule's ratio at each position."""
    found = as_schedule(schedule)
    return [[found(at), found.last_update(at)] for at in range(positions)], found.peak(positions)


def constant(ratio, **options):
    """Returns the schedule of one ratio."""
    return tfnas.schedules.constant(ratio, **options)


def muon(rate, momentum, steps, scale):
    """Returns the optimizer."""
    return tfnas.Muon(rate, momentum=momentum, ns_steps=steps, rms_rate=scale)


# --- distillation


def distillation_losses():
    """Returns word -> loss of (labels, student's logits, teacher's logits)."""
    of = losses.distillation_loss
    return {
        "both": lambda y, s, t: of(y, s, t, 0.3, 4.0),
        "labels": lambda y, s, t: of(y, s, t, 1.0, label_smoothing=0.1),
        "teacher": lambda y, s, t: of(y, s, t, 0.0, 2.0),
        "reverse": lambda y, s, t: of(y, s, t, 0.5, 3.0, reverse=True),
        "many labels": lambda y, s, t: of(one_hot(y, s), s, t, 0.5, 2.0, multi_label=True),
        "averaged": lambda y, s, t: losses.averaged([s, t], [0.3, 0.7]),
    }


def one_hot(labels, logits):
    """Returns a share a class."""
    return np.eye(logits.shape[-1], dtype=np.float32)[labels]


def transfers(student, teacher):
    """Returns word -> comparison of two layers' activations."""
    return {
        "hint": tfnas.FeatureHint(student, teacher, 0.5),
        "attention": tfnas.AttentionTransfer(student, teacher, 10.0),
        "relations": tfnas.RelationalTransfer(student, teacher, 2.0),
    }


def transfer_distance(transfer, student, teacher):
    """Returns how far apart two activations are, an example."""
    return transfer.distance(student, teacher)


def distiller(student, teacher, transfer=None, **options):
    """Returns a model that learns from labels and from another."""
    features = [] if transfer is None else [transfer]
    return tfnas.Distiller(teacher, student, 0.4, 3.0, features=features, **options)


def teacher_outputs(teacher, x):
    """Returns what a teacher gives for fixed inputs."""
    return tfnas.teacher_outputs(teacher, x)


# --- training of whole models

TECHNIQUES = {  # our word -> compress's
    "channels": "prune_channels",
    "low rank": "factorize",
    "dense ranks": "factorize_dense",
    "longer": "train",
    "zeros": "prune",
    "values": "cluster",
}
_OUR_WORD = {theirs: ours for ours, theirs in TECHNIQUES.items()}


def split(parts, class_names):
    """Returns a data set of (inputs, class numbers) to train, to choose and to test."""
    arrays = [array for part in parts for array in part]
    return data.DataSplit("noise", *arrays, class_names)


def fine_tune(model, parts, teacher, rebuild=False, **fields):
    """Trains a classifier of images in place."""
    settings = FineTuneSettings(epochs=1, batch_size=64, **fields)
    context = Context(teacher, ImageClasses(), parts, settings)
    context.fine_tune(model, muon=rebuild)


def compress_step(model, parts, technique, amount, weights=None):
    """Returns a model with one step of `compress` more."""
    step = RecipeStep(TECHNIQUES[technique], amount, weights).step()
    return _applied(model, parts, step, FineTuneSettings(epochs=1, batch_size=64))


def _applied(model, parts, step, settings):
    epochs = round(technique_named(step.technique).epochs_scale * settings.epochs)
    step = dataclasses.replace(step, epochs=epochs)
    [outcome] = run_row(model, [step], Context(model, ImageClasses(), parts, settings))
    return outcome.model


def compress_aware(model, parts, mode):
    """Returns a model that `compress` has trained for integers."""
    settings = FineTuneSettings(epochs=1, batch_size=64, distill=0.3)
    return _applied(model, parts, Step("qat", QatSettings(mode=mode)), settings)


def compression(**fields):
    """Returns what a search does to a network."""
    return tfnas.Compression(**fields)


def trial_epochs(todo, epochs):
    """Returns how many epochs the network and each step of a trial train."""
    return list(epochs_of(todo, epochs).values())


def compressed_in_search(model, x, y, todo, teacher=None):
    """Returns (float model, model to convert) of a trial of a search."""

    def fit(trained, **options):
        return trained.fit(x, y, batch_size=16, verbose=0, **options)

    found = CompressedTraining(fit, x, teacher, seed=3).run(model, todo, 3)
    return found.plain, found.model


# --- search


def objective(name, direction):
    """Returns one objective."""
    return kt.Objective(name, direction)


def limits(**bounds):
    """Returns limits as an oracle takes them: name -> bound."""
    return bounds


SAMPLERS = {
    "random": RandomSampler,
    "evolution": tfnas.EvolutionSampler,
    "reinforce": tfnas.ReinforceSampler,
}
TUNERS = {
    "random": tfnas.RandomTuner,
    "evolution": tfnas.EvolutionTuner,
    "reinforce": tfnas.ReinforceTuner,
}
NOT_OF_A_SAMPLER = ("objective", "hyperparameters", "space", "limits")


def _divided(kind, options):
    """Returns a sampler, and the options that are not its own."""
    own = {name: value for name, value in options.items() if name not in NOT_OF_A_SAMPLER}
    if "crossover" in own:
        own["crossover"] = GroupCrossover(own["crossover"])
    others = {name: value for name, value in options.items() if name in NOT_OF_A_SAMPLER}
    return SAMPLERS[kind](**own), others


def oracle(kind, folder, **options):
    """Returns an oracle that keeps its state in a folder."""
    sampler, others = _divided(kind, options)
    made = SpaceOracle(sampler, max_trials=60, seed=3, **others)
    made.verbose = 0
    made._set_project_dir(folder, "search")
    return made


def halving_tuner(kind, folder, run_trial, **options):
    """Returns a tuner of successive halving whose trials are `run_trial(values, epochs)`."""

    class Tuner(TUNERS[kind]):
        def run_trial(self, trial, *args, **fitting):
            return run_trial(trial.hyperparameters.values, fitting["epochs"])

    sampler, others = _divided(kind, options)
    config = tfnas.TunerConfig(halving=3)
    tuner = Tuner(
        max_trials=60,
        seed=3,
        sampler=sampler,
        config=config,
        directory=folder,
        project_name="search",
        **others,
    )
    tuner.oracle.verbose = 0
    return tuner


def rungs(tuner):
    """Returns what was promoted: trial -> the trial that it goes on from."""
    return dict(tuner.oracle.halving.continues)


def rank_correlation(made):
    """Returns how well an oracle's surrogate ranks; None where it has none."""
    return made.rank_correlation() if hasattr(made, "rank_correlation") else None


def space_with_compression():
    """Returns a space of networks and of what is done to them."""
    choices = tfnas.CompressionSpace(
        ("int8", "dynamic"), (False, True), ("int8", "int4"), (0.0, 0.5), (0, 16), (1.0, 0.6)
    )
    return tfnas.MobileNetV2Space((16, 16, 3), 5, "microcontroller", compression=choices)


def described_architecture(arch):
    """Returns an architecture's key and the values of its description, in the fields' order."""
    todo = arch.compression
    return [
        arch.key,
        [dataclasses.astuple(stage) for stage in arch.stages],
        [arch.resolution, arch.width_multiplier, arch.stem_filters, arch.head_filters],
        None if todo is None else list(dataclasses.astuple(todo)),
    ]


def known_architecture(shape, classes, width):
    """Returns MobileNetV2 itself."""
    return tfnas.mobilenet_v2(shape, classes, width)


def reward(accuracy, latency, target):
    """Returns MnasNet's reward."""
    return mnasnet_reward(accuracy, latency, target)


def front(rows, directions):
    """Returns (Pareto front, hypervolume) of rows."""
    reference = [10.0 if direction == "min" else -10.0 for direction in directions]
    volume = tfnas.hypervolume(rows, reference, directions)
    return [tfnas.pareto_front(rows, directions), volume]


def surrogate(x, y, at):
    """Returns (means, deviations, leave-one-out predictions, settings) of a Gaussian process."""
    fitted = Surrogate(x, y)
    return [*fitted.predict(at), fitted.left_out(), fitted.settings]


def ranks(violations, found):
    """Returns constrained Pareto ranks, crowding distances, and the order of both."""
    return [
        pareto_ranks(violations, found),
        crowding(found),
        best_first(violations, found),
    ]


def inherited(child, parent):
    """Gives a child what fits of a parent's weights; returns the share."""
    return inherit_weights(child, parent)


# --- compress


def _budget(limits):
    """The budget of our words for limits."""
    return Budget.of(limits)


def _steps(recipe):
    return [[_OUR_WORD[s.technique], s.amount, s.weights] for s in recipe.steps]


def recipe(steps=(), mode="int8", aware=False):
    """Returns a recipe of (technique, amount, share of the weights)."""
    found = tuple(RecipeStep(TECHNIQUES[word], *amounts) for word, *amounts in steps)
    return Recipe(found, mode, aware)


def candidate(made, costs, right=None, file=None, device=None):
    """Returns a file that costs (drop, bytes, gzipped bytes, time, MACs, memory)."""
    right = np.ones(20, bool) if right is None else right
    drop = costs[0]
    record = CandidateCosts(*costs, device or {})
    assessment = Assessment(ACCURACY, right)
    return Candidate(made, file, record, (drop, drop - 1, drop + 1), assessment)


def recorded_look(layers, activations, changed, pruned):
    """Returns a look at a model: rows of (name, group, MACs, weights, time, noise, changed)."""
    looked = tuple(LayerAnalysis(*layer) for layer in layers)
    return ModelAnalysis(looked, activations, changed, 128, pruned)


DENSE_GROUP = DENSE


def look(model, file, x, pruning):
    """Returns what is seen of a model, without times."""
    found = analyze_model(model, file, x, ImageClasses(), pruning)
    rows = [[k.name, k.group, k.macs, k.weights, k.noise, k.changed] for k in found.layers]
    return [rows, found.activations, found.changed, found.examples, len(found.left_out)]


def decided(limits, effort, seen, flash=0, ram=0):
    """Returns (the plan's decisions, their values)."""
    made = decide_plan(_budget(limits), EFFORTS[effort], seen, Device("ethos-u55-128", flash, ram))
    values = [made.formats, made.later, made.integers, [_OUR_WORD[t] for t in made.techniques]]
    values += [made.sparsities, made.proportional, made.weights, made.dense, made.fixed]
    values += [[made.macs_for_latency(ratio) for ratio in (0.2, 0.5, 0.9)]]
    return made, values, made.reasons


def planned(limits, effort, made, outcome):
    """Returns the recipes that are tried where `outcome(steps, mode, aware)` gives the costs."""
    tried = []
    state, proposed = next_step(first_state(_budget(limits), EFFORTS[effort], made), None)
    while proposed is not None:
        what = [_steps(proposed), proposed.mode, proposed.aware]
        tried.append([*what, proposed.why])
        costs = outcome(*what)
        result = None if costs is None else candidate(proposed, costs)
        state, proposed = next_step(state, result)
    return tried


def amounts_asked(technique, limits, known, made):
    """Returns the amounts of a technique that the budget asks for."""
    steps, _ = steps_for_budget(TECHNIQUES[technique], _budget(limits), known, made)
    return [[step.amount, step.weights] for step in steps]


def amounts_again(amount, weights, file, limits, made):
    """Returns the smaller amounts where a file takes a little too much."""
    step = RecipeStep(TECHNIQUES["channels"], amount, weights)
    return [[s.amount, s.weights] for s in with_fewer_weights(step, file, _budget(limits), made)]


def excesses(limits, made):
    """Returns by how much a candidate exceeds a budget, in the limits' order."""
    return list(_budget(limits).excesses(made.costs).values())


def best_of(candidates, limits):
    """Returns (number of the best, numbers of the front with and without gzip)."""
    best = candidates.index(best_for_budget(candidates, _budget(limits)))
    fronts = [[candidates.index(c) for c in pareto(candidates, gz)] for gz in (False, True)]
    return [best, *fronts]


def is_beaten(right, row, others):
    """Returns whether a candidate is not worth measuring further."""
    return beaten(Assessment(ACCURACY, right), row, others, gz=False)


# --- measurements, data, reports


def profiled(model):
    """Returns what a model costs."""
    found = tfnas.profile(model)
    rows = [[k.name, k.output_shape, k.parameters, k.macs] for k in found.layers]
    return [rows, found.parameters, found.macs, found.peak_activations]


def load_data(name, **options):
    """Returns the arrays of a data set."""
    return _arrays(data.load(name, **options))


def derived_data(name):
    """Returns the arrays of parts of a data set: for fewer examples, and for a given model."""
    found = data.load(name)
    return [_arrays(found.limited(200, 1)), _arrays(found.for_given_model(2))]


def _arrays(found):
    parts = [found.x_train, found.y_train, found.x_val, found.y_val, found.x_test, found.y_test]
    return [found.name, *parts, found.class_names]


def typical(x, examples):
    """Returns examples from all over an array."""
    return data.spread(x, examples)


def augmented(x, y, names, seed):
    """Returns the batches of two epochs of changed images."""
    images = AugmentedImages(x, y, names, 16, seed)
    batches = [images[i] for i in range(len(images))]
    images.on_epoch_end()
    return [[np.asarray(part) for part in batch] for batch in [*batches, images[0]]]


def quality(labels, outputs):
    """Returns a score with its interval."""
    return score(labels, outputs)


def difference(one, other):
    """Returns a paired difference of right answers with its interval."""
    return paired_difference(one, other)


def agreement(one, other, x, y, models):
    """Returns how two files answer the same examples."""
    found = agreement_of(one, other, x, y, tuple("abcd"), models)
    # The attack's name as in the recorded digests.
    accuracy = {
        name.replace("computed on each Keras model", "made on each Keras twin"): pair
        for name, pair in found.accuracy.items()
    }
    return dataclasses.replace(found, accuracy=accuracy)


def latency_features(space, count, seed, mode):
    """Returns (features' values, MACs) of random networks of a space."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        network = operators_of_architecture(space.sample(rng))
        features = network_features(network, mode)
        rows.append([sorted(features.values()), macs(network)])
    return rows


def fitted_costs(rows, ratios):
    """Returns (costs, errors of a cross-validation) of features."""
    return [fit_costs(rows, ratios), cross_validated(rows, ratios, 1)]


def fitted_latency(space, mode, time_of, archs):
    """Returns what a latency model predicts, fitted to files that take `time_of(bytes)`."""

    class Time:
        def __init__(self, file):
            self.p10_ms = time_of(file.size)

    def measure(files, **settings):
        found = [Time(file) for file in files]
        found[0].p10_ms = 1.0
        return found

    with unittest.mock.patch.object(profiling, "benchmark", measure):
        model = tfnas.LatencyModel(mode).fit(space, seconds=1e-9, seed=3)
    errors = dataclasses.astuple(model.fitted.errors)
    return [sorted(model.fitted.costs.values()), errors, [model(arch) for arch in archs]]


def compress_report(model, parts, files, labels):
    """Returns the texts of the report of a recorded result of `compress`: terminal, page, file.

    Args:
        model: The model behind the second file.
        parts: The data.
        files: The original's file and the best one.
        labels: Class numbers of the test part.
    """
    original, small = files
    tried = [
        candidate(recipe((), "float16"), (0.1, 900, 800, 0.9, 1.0, 40), labels == 0),
        candidate(
            recipe([("channels", 0.5)], "int8", True), (0.6, 400, 350, 0.5, 0.5, 20), file=small
        ),
    ]
    budget = _budget({"max_drop": 1.0, "max_latency_ratio": 0.6, "max_bytes": 500})
    rows = compare_files(
        ImageClasses(), parts.test, [(ORIGINAL, original), (str(tried[1].recipe), small)]
    )
    looked = recorded_look([("stem", "3x3", 5000, 90, 0.4, 0.02, 0.1)], 900, 0.05, True)
    times = {row.label: _latency(1.5 / (1 + i)) for i, row in enumerate(rows)}
    result = CompressResult(
        directory=pathlib.Path("out"),
        budget=budget,
        effort="normal",
        device=Device(),
        candidates=tried,
        front=tried[1:],
        best=tried[1],
        excesses=budget.excesses(tried[1].costs),
        original=(0.9, 1.0, original.size),
        rows=rows,
        latencies=times,
        agreement=agreement_of(original, small, parts.x_test, parts.y_test, parts.class_names),
        failures={"int4": "no kernel"},
        model_analysis=looked,
        plan=decide_plan(budget, EFFORTS["normal"], looked, Device()),
        layers=file_layers(model, small, parts.x_test),
        throughput=[Throughput(i, 8, 1, 100.0 + i, 90.0, 120.0, 1.5, 1.2, 1.7, 20) for i in (0, 1)],
        saved_model=None,
    )
    # With the columns of the report: what a terminal shows is narrower.
    texts = [
        "\n".join([table(report._file_headers(result), report._rows(result)), *_lines(result)])
    ]
    with tempfile.TemporaryDirectory() as folder:
        there = dataclasses.replace(result, directory=pathlib.Path(folder))
        report.write(there, parts, FineTuneSettings(epochs=3))
        texts += [(there.directory / name).read_text() for name in ("report.md", "report.html")]
    return texts


def _lines(result):
    return [report.verdict(result), *report.remarks(result), *result.agreement.warnings()]


def _latency(ratio):
    return Latency(
        *(0.2, 0.15, 0.3, ratio, 0.9 * ratio, 1.1 * ratio, 0.1, "reference", 20, 1, True)
    )


def search_report(archs, parts):
    """Returns the texts of the report of a recorded search: terminal, front, Markdown, JSON."""
    tried = [_trial(i, arch) for i, arch in enumerate(archs)]
    rng = np.random.default_rng(41)
    right = [rng.random(len(parts.y_test)) > share for share in (0.1, 0.2, 0.3)]
    labels = ("winner, int8", "winner, float32", "MobileNetV2, int8")
    rows = [
        ReportRow(label, c.measurement, c.objective, r)
        for label, c, r in zip(labels, tried, right, strict=False)
    ]
    result = SearchResult(
        *(pathlib.Path("out"), tried[0], tried, tried[:2], rows, rows[1:], False),
        PredictionErrors(LatencyErrors(0.02, 0.07, 0.95, 0.98, 0.99, 40), None),
        target_ratio=0.7,
    )
    texts = [str(result)]
    with tempfile.TemporaryDirectory() as folder:
        there = dataclasses.replace(result, directory=pathlib.Path(folder))
        search_texts.write(there, SearchConfig("digits", seed=4), parts)
        names = ("pareto.csv", "report.md", "results.json")
        texts += [(there.directory / name).read_text() for name in names]
    return texts


def _trial(number, arch):
    size = 20_000 + 1000 * number
    found = Measurement(
        *(size, size // 2, "0" * 64, "int8", Score("accuracy", 0.9 - 0.01 * number, 0.8, 0.95, 90)),
        *(_latency(0.5 + 0.1 * number), 5000 + number, 90_000 + number, 800, arch.key),
    )
    told = {"rung": float(number % 2), "epochs": float(1 + number % 2)}
    return Trial(f"{number:02d}", arch, found, 0.8 - 0.02 * number, pathlib.Path("x"), told)


# --- the commands' jobs

RATES = {"aware": 1e-4}
JOBS = {  # our word -> (job, its record of settings, settings)
    "zeros": ("prune", {"sparsity": 0.5, "sparse": False}, {}),
    "values": ("cluster", {"clusters": 8, "renew": 3}, {}),
    "low rank": ("factorize", {"macs": 0.7}, {"distill": 0.3}),
    "channels": ("prune_channels", {"macs": 0.6, "criterion": "taylor"}, {}),
    "aware": ("qat", {"mode": "int8", "start_epoch": 0}, {}),
}


def job(kind, model, parts):
    """Runs a command's job; returns (the model that it keeps, the contents of its files)."""
    name, fields, training = JOBS[kind]
    settings = FineTuneSettings(epochs=1, batch_size=64, seed=5, **training)
    step = Step(
        name,
        technique_named(name).settings(**fields),
        epochs=1,
        learning_rate=RATES.get(kind, 1e-3),
    )
    with tempfile.TemporaryDirectory() as folder:
        tfnas.run_techniques(model, [step], parts, directory=folder, settings=settings)
        kept = tfnas.load_model(str(next(pathlib.Path(folder).glob("*.keras"))))
        files = sorted(pathlib.Path(folder).glob("*.tflite"))
        return kept, [file.read_bytes() for file in files]
