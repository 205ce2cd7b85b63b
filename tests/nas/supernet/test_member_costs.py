"""Costs of networks without a training, against those of their converted files."""

import math

import numpy as np
import pytest

import tfnas
from tfnas.nas.supernet.member_costs import MemberCosts
from tfnas.targets.device import NotOnDevice


@pytest.fixture(scope="module")
def space():
    return tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")


def costs_of(space, *names):
    return MemberCosts(space, tfnas.TunerConfig(), tfnas.Device(runtime_ram=1000), {*names}, None)


def test_memory_is_that_of_the_converted_file(space):
    arch = space.smallest(np.random.default_rng(1))
    found = costs_of(space, "ram_bytes", "macs", "file_accuracy")(arch)
    data = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 1)).astype("float32")
    file = tfnas.to_tflite(space.build(arch), "int8", data)
    assert found["ram_bytes"] == tfnas.planned_arena(file) + 1000
    assert found["macs"] == tfnas.profile(space.build(arch)).macs
    assert set(found) == {"ram_bytes", "macs"}


def test_the_share_on_a_gpu_is_that_of_the_file(space):
    costs = costs_of(space, "delegated_macs")
    arch = space.smallest(np.random.default_rng(1))
    share = tfnas.readiness(costs.file(arch), ["gpu"]).of("gpu").share_by_default
    assert costs(arch) == {"delegated_macs": share}


def test_costs_are_computed_once(space, monkeypatch):
    costs = costs_of(space, "ram_bytes")
    arch = space.smallest(np.random.default_rng(1))
    first = costs(arch)
    monkeypatch.setattr(costs, "file", None)
    assert costs(arch) is first


def test_a_network_that_no_device_runs_costs_infinitely_much(space, monkeypatch):
    costs = costs_of(space, "ram_bytes")

    def refuse(file, names):
        raise NotOnDevice("no kernel")

    monkeypatch.setattr(tfnas.Device, "metrics", lambda self, file, names: refuse(file, names))
    assert costs(space.smallest(np.random.default_rng(1))) == {"ram_bytes": math.inf}


@pytest.mark.slow
def test_bytes_are_those_of_the_converted_file(space):
    costs = costs_of(space, "size_bytes", "flash_bytes")
    rng = np.random.default_rng(5)
    data = rng.uniform(0, 255, (8, 8, 8, 1)).astype("float32")
    for arch in (space.smallest(rng), space.largest(rng), space.sample(rng)):
        size = tfnas.to_tflite(space.build(arch), "int8", data).size
        found = costs(arch)
        assert found["size_bytes"] == pytest.approx(size, rel=0.03)
        assert found["flash_bytes"] == found["size_bytes"]
