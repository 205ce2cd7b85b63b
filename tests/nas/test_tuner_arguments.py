"""Settings of tuners: records, keras_tuner's own arguments, names that nobody knows."""

import inspect

import keras_tuner as kt
import pytest

import tfnas
from tfnas.nas.tuner_arguments import KerasTunerArguments, check_names, split_arguments

SPACE = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_trial", r"unknown argument 'max_trial': did you mean 'max_trials'\?"),
        ("projectname", r"unknown argument 'projectname': did you mean 'project_name'\?"),
        ("threads", r"unknown .*: did you mean config=tfnas\.TunerConfig\(threads=\.\.\.\)\?"),
        ("runtime_ram", r"did you mean device=tfnas\.Device\(runtime_ram=\.\.\.\)\?"),
        ("children", r"did you mean sampler=tfnas\.EvolutionSampler\(children=\.\.\.\)\?"),
        ("zzz", r"unknown argument 'zzz': the known ones are hypermodel, .*, overwrite"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_right_word(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        tfnas.EvolutionTuner(SPACE, directory=tmp_path, **{name: 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config", r"config must be a tfnas\.TunerConfig, got 5"),
        ("device", r"device must be a tfnas\.Device, got 5"),
        ("sampler", r"sampler must be a .*Sampler, got 5"),
    ],
)
def test_records_have_their_types(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        tfnas.EvolutionTuner(SPACE, directory=tmp_path, **{name: 5})


def test_every_argument_of_keras_tuner_is_known_and_goes_where_it_belongs():
    own = {"objective", "max_trials", "seed", "oracle", "hypermodel", "self", "kwargs"}
    of = {
        kind: set(inspect.signature(kind.__init__).parameters) - own
        for kind in (kt.Oracle, kt.Tuner)
    }
    assert set(KerasTunerArguments.__annotations__) == of[kt.Oracle] | of[kt.Tuner]
    oracle, tuner = split_arguments(dict.fromkeys(KerasTunerArguments.__annotations__))
    assert set(oracle) == of[kt.Oracle]
    assert set(tuner) == of[kt.Tuner]


@pytest.mark.parametrize("record", [tfnas.TunerConfig, KerasTunerArguments, tfnas.Device])
def test_each_field_is_described_once(record):
    names = record.__annotations__
    described = inspect.getdoc(record).split("Args:")[1]
    assert [described.count(f"\n    {name}: ") for name in names] == [1] * len(names)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "int7", "int7"),
        ("target_latency_ms", 0.0, r"target_latency_ms must be above 0, got 0\.0"),
        ("target_latency_ratio", float("inf"), "target_latency_ratio must be above 0, got inf"),
        ("latency_exponent", 0.1, r"exponent must be at most 0, got 0\.1"),
        ("threads", 0, "threads must be a whole number >= 1, got 0"),
        ("rounds", 1, "rounds must be"),
        ("inherit", "yes", "inherit must be True or False, got 'yes'"),
        ("halving", 1, "halving must be a whole number >= 2, got 1"),
        ("min_epochs", 2, "min_epochs needs halving, got 2 without it"),
        ("compression", "int8", "compression must be a tfnas.CompressionSpace, got 'int8'"),
        ("latency_model", "model", "latency_model must be a fitted tfnas.LatencyModel"),
        ("latency_seconds", -1, "latency_seconds must be a finite number above 0, got -1"),
        ("executor", 3, "executor must be an executor of concurrent.futures or .*, got 3"),
        ("parallel", 0, "parallel must be a whole number >= 1, got 0"),
    ],
)
def test_each_field_of_the_config_has_its_rule(field, value, message):
    with pytest.raises(ValueError, match=message):
        tfnas.TunerConfig(**{field: value})


def test_what_a_trial_needs_of_the_config_can_be_sent():
    config = tfnas.TunerConfig(threads=2, executor=dict, parallel=3, latency_seconds=5)
    sent = config.for_trials()
    assert (sent.threads, sent.executor, sent.parallel, sent.latency_seconds) == (2, *[None] * 3)


def test_names_are_checked_without_a_tuner():
    check_names(["overwrite", "seed"], ["seed"], {})
    with pytest.raises(ValueError, match="did you mean 'overwrite'"):
        check_names(["overwrit"], [], {})
