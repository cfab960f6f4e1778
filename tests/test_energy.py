"""Energy from counters: the processor's in a tree like Linux's, a GPU's in a module like NVIDIA's."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from dvbench.measure.energy import EnergyMeter, total

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)
RANGE = 262_143_328_850  # microjoules, as on real machines


def zone(powercap, directory, name, microjoules, wraps=RANGE):
    """Write a zone as Linux shows it and return the file of its counter."""
    place = powercap / directory
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{wraps}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


@pytest.fixture
def packages(tmp_path):
    """Two packages among the other zones that there are."""
    counters = [zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1_000_000) for number in range(2)]
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:0:1", "dram", 5)
    zone(tmp_path, "intel-rapl:2", "psys", 5)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path, counters


def test_the_processors_energy_is_that_of_all_packages_and_of_nothing_else(packages):
    powercap, (first, second) = packages
    meter = EnergyMeter(CPU, powercap)
    meter.start()
    assert meter.joules() == 0.0
    first.write_text("3500000\n")
    second.write_text("1250000\n")
    for other in ("intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:2", "intel-rapl-mmio:0"):
        (powercap / other / "energy_uj").write_text("999000000\n")
    assert meter.joules() == pytest.approx(2.75)
    second.write_text("2250000\n")
    assert meter.joules() == pytest.approx(3.75)


def test_a_counter_that_begins_anew_goes_on_counting(packages):
    powercap, (first, _) = packages
    meter = EnergyMeter(CPU, powercap)
    first.write_text(f"{RANGE - 2_000_000}\n")
    meter.start()
    first.write_text("3000000\n")
    assert meter.joules() == pytest.approx(5.0)
    for _ in range(2):  # once more round, told in time
        first.write_text(f"{RANGE // 2}\n")
        meter.joules()
        first.write_text("3000000\n")
        meter.joules()
    assert meter.joules() == pytest.approx(5.0 + 2 * RANGE / 1e6)


def test_it_begins_at_zero_each_time(packages):
    powercap, (first, _) = packages
    meter = EnergyMeter(CPU, powercap)
    meter.start()
    first.write_text("9000000\n")
    assert meter.joules() == pytest.approx(8.0)
    first.write_text("50000000\n")
    meter.start()
    first.write_text("51000000\n")
    assert meter.joules() == pytest.approx(1.0)


def test_what_is_not_started_has_measured_nothing(packages):
    assert EnergyMeter(CPU, packages[0]).joules() is None


@pytest.mark.parametrize("device", [CPU, torch.device("mps"), torch.device("meta")], ids=str)
def test_a_device_that_does_not_tell_is_none(tmp_path, device):
    meter = EnergyMeter(device, tmp_path)
    meter.start()
    assert meter.joules() is None


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
@pytest.mark.parametrize("damage", ["gone", "no number", "a directory"])
def test_one_package_that_cannot_be_read_is_no_error_and_leaves_the_sum_unknown(packages, file, damage):
    powercap, (first, _) = packages
    damaged = first.with_name(file)
    damaged.unlink()
    if damage == "no number":
        damaged.write_text("package-?\n")
    elif damage == "a directory":  # what may not be read raises an OSError too, but not for root
        damaged.mkdir()
    meter = EnergyMeter(CPU, powercap)
    meter.start()
    if file == "name" and damage == "no number":  # a package still
        assert meter.joules() == 0.0
    else:
        assert meter.joules() is None


def test_a_counter_that_is_lost_in_between_leaves_the_sum_unknown_until_it_begins_anew(packages):
    powercap, (first, _) = packages
    meter = EnergyMeter(CPU, powercap)
    meter.start()
    first.unlink()
    assert meter.joules() is None
    first.write_text("1000000\n")
    assert meter.joules() is None
    meter.start()
    assert meter.joules() == 0.0


class Nvml:
    """What pynvml offers, for two GPUs in NVML's order."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.millijoules = {"GPU-aaaa": 7_000, "GPU-bbbb": 1_000_000}
        self.started = False

    def nvmlInit(self):  # noqa: N802 - NVIDIA's names
        self.started = True

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if not self.started or uuid not in self.millijoules:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if self.millijoules[handle] is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules[handle]


@pytest.fixture
def gpus(monkeypatch):
    """CUDA sees the two GPUs the other way round, as with CUDA_VISIBLE_DEVICES=1,0."""
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    seen = {0: "bbbb", 1: "aaaa"}
    properties = lambda device: SimpleNamespace(uuid=seen[device.index])  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return nvml


def test_a_gpu_is_found_by_its_uuid_and_not_by_its_place(gpus):
    meter = EnergyMeter(CUDA)
    meter.start()
    gpus.millijoules = {"GPU-aaaa": 7_250, "GPU-bbbb": 9_000_000}
    assert meter.joules() == pytest.approx(0.25)
    gpus.millijoules["GPU-aaaa"] += 2_000
    assert meter.joules() == pytest.approx(2.25)


def test_a_gpu_whose_energy_nvml_does_not_tell_is_none(gpus):
    gpus.millijoules["GPU-aaaa"] = None
    meter = EnergyMeter(CUDA)
    meter.start()
    assert meter.joules() is None


def test_a_gpu_that_nvml_does_not_know_is_none(gpus):
    del gpus.millijoules["GPU-aaaa"]
    meter = EnergyMeter(CUDA)
    meter.start()
    assert meter.joules() is None


def test_without_nvml_a_gpu_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError
    meter = EnergyMeter(CUDA)
    meter.start()
    assert meter.joules() is None


def test_a_total_is_known_where_all_parts_are():
    assert total([1.5, 2.0]) == 3.5
    assert total([1.5, None]) is None
    assert total([]) == 0.0
