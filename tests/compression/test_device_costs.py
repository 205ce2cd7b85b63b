"""`compress` for a microcontroller and an accelerator: limits, plan, record, report."""

import importlib.util
import json
import math
import types

import keras
import numpy as np
import pytest
from planning import walked

import tfnas
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.candidate_store import Candidate, best_for_budget, front
from tfnas.compression.device_costs import Target, target_notes
from tfnas.compression.effort import Effort
from tfnas.compression.plan_settings import decide_plan
from tfnas.compression.planner import first_state
from tfnas.compression.recipe import Recipe
from tfnas.compression.results.compress_result import verdict
from tfnas.targets import device as device_module
from tfnas.targets.device import Device
from tfnas.targets.ethos_u import VelaError

needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="no ethos-u-vela on this machine: nothing was compiled",
)
PLAIN = CandidateCosts(0.0, 800, 700, 0.5, 1.0, 10)


def costs(refused="", drop=0.0, **device):
    return CandidateCosts(drop, 800, 700, 0.5, 1.0, 10, device, refused)


def candidate(recipe=None, **values):
    drop = values.get("drop", 0.0)
    return Candidate(
        recipe or Recipe((), "int8"), None, costs(**values), (drop,) * 3, np.ones(10, bool)
    )


# --- the budget


def test_limits_of_a_device_are_excesses_too():
    budget = Budget(max_flash_bytes=1000, max_vela_cpu_operators=0)
    assert budget.excesses(costs(flash_bytes=1000, vela_cpu_operators=0)) == {}
    found = budget.excesses(costs(flash_bytes=1500, vela_cpu_operators=3))
    assert found == {"max_flash_bytes": 0.5, "max_vela_cpu_operators": 3}
    refused = budget.excesses(costs("why", flash_bytes=math.inf, vela_cpu_operators=math.inf))
    assert set(refused.values()) == {math.inf}
    with pytest.raises(
        ValueError, match="max_vela_cpu_operators must be a finite number >= 0, got -1"
    ):
        Budget(max_vela_cpu_operators=-1)


def test_a_share_of_macs_is_limited_from_below():
    budget = Budget(min_delegated_macs=0.9)
    assert budget.excesses(costs(delegated_macs=0.9)) == {}
    assert budget.excesses(costs(delegated_macs=0.5)) == {"min_delegated_macs": pytest.approx(0.4)}
    assert budget.excesses(costs("why", delegated_macs=-math.inf))["min_delegated_macs"] == math.inf
    low, high = candidate(delegated_macs=0.5), candidate(delegated_macs=1.0, drop=0.1)
    assert front([low, high, candidate(delegated_macs=0.4)], gzipped=False) == [low, high]
    assert best_for_budget([low, high], budget) is high
    assert high.costs.device_texts() == {"delegated_macs": "1.000"}
    with pytest.raises(ValueError, match="min_delegated_macs must be a fraction up to 1, got 95"):
        Budget(min_delegated_macs=95)
    with pytest.raises(ValueError, match="min_delegated_macs must be a finite number >= 0, got -1"):
        Budget(min_delegated_macs=-1)


def test_the_one_that_keeps_the_device_is_on_the_front():
    """A file that is as small and fast hides none that takes less of the device."""
    greedy, small = candidate(ram_bytes=900), candidate(ram_bytes=500, drop=0.1)
    refused = candidate(refused="no kernel", ram_bytes=math.inf)
    assert front([greedy, small, refused], gzipped=False) == [greedy, small]
    assert best_for_budget([greedy, small], Budget(max_ram_bytes=600)) is small


# --- the plan


def tried(budget, outcome, device=None):
    effort = Effort(("int8",), 1, rounds=1)
    return walked(first_state(budget, effort, decide_plan(budget, effort, None, device)), outcome)


def test_channels_are_pruned_to_the_flash_beside_the_firmware():
    found = tried(
        Budget(max_flash_bytes=600),
        lambda recipe: candidate(recipe, flash_bytes=1000),
        Device(runtime_flash=200),
    )
    assert found[:2] == ["int8", "prune_channels 1 weights 0.47, int8"]  # 95% of 400 : 800
    found = tried(Budget(max_vela_cycles=500), lambda r: candidate(r, vela_cycles=1000.0))
    assert found[1] == "prune_channels 0.47, int8"


def test_files_that_the_device_can_not_run_are_not_reduced():
    budget = Budget(max_ram_bytes=600)
    assert tried(budget, lambda r: candidate(r, refused="no kernel", ram_bytes=math.inf)) == [
        "int8"
    ]


# --- costs of a file


def test_flash_and_ram_are_kept_for_the_same_file_and_device(artifacts, tmp_path, monkeypatch):
    file, budget = artifacts["int8"], Budget(max_flash_bytes=1e6, max_ram_bytes=1e6)
    target = Target.of(budget, Device(runtime_flash=1000, runtime_ram=500))
    found = target.costs(PLAIN, file, tmp_path)
    assert found.device == {
        "flash_bytes": file.size + 1000,
        "ram_bytes": tfnas.planned_arena(file) + 500,
    }
    with monkeypatch.context() as patch:
        patch.setattr(device_module, "planned_arena", None)
        assert target.costs(PLAIN, file, tmp_path) == found, "read, not planned again"
    record = json.loads((tmp_path / "device.json").read_text())
    del record["values"]
    (tmp_path / "device.json").write_text(json.dumps(record))
    assert target.costs(PLAIN, file, tmp_path) == found, "half a record is none"
    another = target.costs(PLAIN, artifacts["float32"], tmp_path)
    assert another.device["flash_bytes"] == artifacts["float32"].size + 1000
    other = Target.of(budget, Device()).costs(PLAIN, file, tmp_path)
    assert other.device["flash_bytes"] == file.size, "another device is measured anew"
    assert Target().costs(PLAIN, None, tmp_path) is PLAIN


def test_a_file_that_the_device_can_not_run_is_over_the_budget(artifacts, tmp_path):
    budget = Budget(max_ram_bytes=1e6)
    target = Target.of(budget, Device())
    for _ in range(2):  # measured, read
        found = target.costs(PLAIN, artifacts["dynamic"], tmp_path)
        assert found.device == {"ram_bytes": math.inf}
        assert "TFLite Micro" in found.refused
        assert budget.excesses(found) == {"max_ram_bytes": math.inf}


def test_files_are_judged_and_rewritten_for_a_gpu(artifacts, tmp_path):
    target = Target.of(Budget(min_delegated_macs=0.9), Device(), "gpu")
    found = target.costs(PLAIN, artifacts["float32"], tmp_path)
    assert found.device == {"delegated_macs": 1.0}
    lines = []
    file = target.fitted(artifacts["float32"], lines.append)
    assert "of the MACs in 1 part, 0 operators left" in lines[0]
    assert "100.0% of the MACs in 1 part" in target_notes(target, file)[0]
    assert target_notes(Target(), file) == ()
    with pytest.raises(ValueError, match="fit_for must be one of gpu, got 'npu'"):
        Target.of(Budget(max_drop=1), Device(), "npu")


def test_a_compiler_that_fails_on_a_file_does_not_end_the_job(artifacts, tmp_path, monkeypatch):
    def fails(*args):
        raise VelaError("ethos-u-vela failed with exit code 1: an int4")

    monkeypatch.setattr(device_module, "vela", fails)
    monkeypatch.setattr(device_module, "check_package", lambda: None)
    target = Target.of(Budget(max_vela_ms=1.0), Device())
    found = target.costs(PLAIN, artifacts["int8"], tmp_path)
    assert (found.device, found.refused.endswith("an int4")) == ({"vela_ms": math.inf}, True)
    assert list(tmp_path.iterdir()) == [], "it may succeed the next time"


@pytest.mark.parametrize("accelerator", ["ethos-u65-256", "ethos-u85-128"])
def test_flash_of_an_accelerator_that_keeps_weights_elsewhere(accelerator, monkeypatch):
    monkeypatch.setattr(device_module, "check_package", lambda: None)
    with pytest.raises(
        ValueError, match=r"vela_flash_bytes must be requested for .*weights are in flash"
    ):
        Target.of(Budget(max_vela_flash_bytes=1000), Device(accelerator))
    Target.of(Budget(max_vela_sram_bytes=1000), Device(accelerator))


@needs_vela
def test_numbers_of_the_accelerator(artifacts, tmp_path):
    budget = Budget(max_vela_cycles=1e9, max_vela_cpu_operators=0)
    target = Target.of(budget, Device("ethos-u55-64"))
    found = target.costs(PLAIN, artifacts["int8"], tmp_path / "int8")
    report = tfnas.vela(artifacts["int8"], "ethos-u55-64")
    assert found.device == {"vela_cycles": report.cycles.total, "vela_cpu_operators": 0}
    # None of its cycles are the accelerator's, which is no merit.
    found = target.costs(PLAIN, artifacts["float32"], tmp_path / "float32")
    assert found.refused.startswith("ethos-u55-64 runs none of the file's ")


# --- a complete job


@pytest.mark.slow
def test_a_job_continues_for_a_device(tiny_model, digits, tmp_path):
    """A job without a device, as before there were such, then the same for one."""
    folder = tmp_path / "job"
    tfnas.compress(
        tiny_model, digits, {"max_memory": 4000}, effort="quick", directory=folder
    )  # integers alone
    limits = {"max_flash_bytes": 200_000, "max_ram_bytes": 1000}
    device = {"runtime_flash": 20_000, "runtime_ram": 900}
    result = tfnas.compress(tiny_model, digits, limits, effort="quick", directory=folder, **device)
    assert [str(each.recipe) for each in result.candidates] == ["int8", "int8x4"]
    assert "float16 is left out: the device has no kernels" in " ".join(result.plan.reasons)
    record = json.loads((folder / "candidates" / "int8" / "record.json").read_text())
    assert set(record["costs"]) == {"drop", "bytes", "gzip_bytes", "latency", "macs", "memory"}
    for each in result.candidates:
        arena = tfnas.planned_arena(each.file)
        assert each.costs.device == {
            "flash_bytes": each.file.size + 20_000,
            "ram_bytes": arena + 900,
        }
    assert set(result.excesses) == {"max_ram_bytes"}
    taken = result.best.costs.device_texts()
    assert set(taken) == {"flash_bytes", "ram_bytes"}
    for text in (
        str(result),
        *((folder / f"report.{kind}").read_text() for kind in ("md", "html")),
    ):
        assert all(word in text for pair in taken.items() for word in pair)
    assert "runtime_flash" in (folder / "report.md").read_text()


def test_the_verdict_says_why_the_device_can_not_run_it():
    result = types.SimpleNamespace(
        budget=Budget(max_ram_bytes=1),
        meets=False,
        best=candidate(refused="no kernel.", ram_bytes=math.inf),
    )
    assert verdict(result) == (
        "No file keeps the budget (max_ram_bytes 1). The device can't run int8: no kernel."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accelerator": "npu"}, "accelerator must be one of ethos-u55-32, .*, got 'npu'"),
        ({"runtime_ram": -1}, "runtime_ram must be a whole number of bytes >= 0, got -1"),
        (
            {"runtime_flash": 5000},
            "max_flash_bytes must be above runtime_flash, 5,000 bytes, got 5,000",
        ),
    ],
)
def test_bad_devices_are_named_before_any_work(change, message, tiny_model, digits, tmp_path):
    job = tmp_path / "job"
    with pytest.raises(ValueError, match=message):
        tfnas.compress(tiny_model, digits, {"max_flash_bytes": 5000}, directory=job, **change)
    assert not job.exists()


def test_a_missing_package_is_reported_before_any_work(tiny_model, digits, tmp_path, monkeypatch):
    def missing():
        raise ImportError("accelerators need the package ethos-u-vela")

    monkeypatch.setattr(device_module, "check_package", missing)
    with pytest.raises(ImportError, match="ethos-u-vela"):
        tfnas.compress(tiny_model, digits, {"max_vela_ms": 1.0}, directory=tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_flags_of_the_command(tiny_model, tmp_path, tfnas_command):
    tiny_model.save(tmp_path / "m.keras")
    line = ["compress", tmp_path / "m.keras", "--dataset=digits", "--max_ram_bytes=1000"]
    code, _, err = tfnas_command(*line, "--runtime_ram=1000")
    assert code == 2
    assert "max_ram_bytes must be above runtime_ram, 1,000 bytes, got 1,000" in err
    code, _, err = tfnas_command(*line, "--accelerator=npu")
    assert code == 2
    assert "--accelerator needs a limit on the device, --max_vela_..., got none" in err
    code, _, err = tfnas_command(*line, "--runtime_flash=5")
    assert "--runtime_flash needs a limit on the device, --max_flash_bytes" in err
    code, _, err = tfnas_command(*line, "--max_bytes=lots")
    assert "--max_bytes must be a number, perhaps with KB, KiB, MB or MiB, got 'lots'" in err
    code, _, err = tfnas_command(*line, "--max_vela_ms=1", "--accelerator=npu")
    assert code == 2
    assert "accelerator must be one of ethos-u55-32" in err


@pytest.mark.slow
def test_files_of_a_job_are_for_a_gpu(digits, tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.LayerNormalization(axis=(1, 2, 3))])
    model.add(layers.UpSampling2D(2))
    model.add(layers.Conv2D(4, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    found = tfnas.compress(
        *(model, digits, {"min_delegated_macs": 1.0}),
        **{"directory": tmp_path / "job", "effort": "quick", "fit_for": "gpu"},
    )
    assert found.meets
    assert tfnas.readiness(found.best.file, ["gpu"]).of("gpu").share == 1.0
    assert any("the chosen file on the GPU delegate" in note for note in found.notes)
    assert "delegated_macs 1.000" in str(found)
