"""A GPU, measured into a cluster of one device: here its emulator, whose times are long, but times."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import simulator
from minidl import cuda, models
from minidl.parallel import Plan
from simulator import calibrate as calibrate_function
from simulator.__main__ import main
from simulator.calibrate import cache_path, calibration, quick
from simulator.calibration import identity
from simulator.measure import NO_SPEED, Effort, measure
from simulator.measured_devices import MEASURED_DEVICES
from simulator.probes.chains import KINDS
from simulator.probes.sizes import Sizes
from tests.simulator.command import check_refused
from tests.simulator.hand_made import made_up, made_up_gpu

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("warm_workers")

MODULE = sys.modules["simulator.calibrate"]
TINY = Effort(rounds=1, sizes=Sizes(gemm=(4, 16), dense=((8, 4),)), steps=3, micro_batches=1)


@pytest.fixture(scope="module")
def tiny(warm_workers):
    """What is measured of the emulator in the smallest sizes, and what was said meanwhile."""
    said = []
    return measure(said.append, TINY, "cuda"), said


@pytest.fixture
def measured(monkeypatch):
    """A GPU by the name of Abacus, whose measurement is made up; a list of the devices that were measured."""
    asked = []
    monkeypatch.setattr(cuda, "get_device_name", lambda: "Abacus")
    made = {"cpu": made_up, "cuda": made_up_gpu}
    monkeypatch.setattr(MODULE, "measure", lambda progress, effort, device: asked.append(device) or made[device]())
    return asked


def test_a_gpu_is_a_cluster_of_one_device_that_shares_no_cores_and_has_no_network(tiny):
    found, said = tiny
    cluster = found.cluster()
    assert said == ["compiled kernels", "matrix products and kernels", "instructions"]  # no cores, no communication
    assert (cluster.name, cluster.devices, cluster.processors) == ("emulated", 1, None)
    assert cluster.memory_bytes == cuda.mem_get_info()[1] and str(cluster.network) == "none"
    assert cluster.peak_flops("float32") == pytest.approx(2 * 16**3 / cluster.compute.matmul_seconds(1, 16, 16, 16))
    assert found.machine == identity() | {"gpu": "emulated"} and found.device == cluster.compute.device == "cuda"


def test_all_figures_of_a_gpu_are_finite_and_can_be_kept_and_read_again(tiny, tmp_path):
    found, _ = tiny
    assert {"relu", "relu_grad", "add", "copy", "cross_entropy", "sgd_update"} <= found.compute["kernels"].keys()
    assert len(found.compute["gemm_seconds"]) == 8 and found.compute["matmul_contention"] == 1
    for points in (*found.compute["kernels"].values(), found.compute["python"]):
        assert points == sorted(points) and all(math.isfinite(seconds) and seconds > 0 for _, seconds in points)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(asdict(found)))
    assert MODULE._read(path, "cuda") == found
    with pytest.raises(ValueError, match="network"):
        MODULE._read(path, "cpu")


def test_a_gpu_prices_plans_of_one_worker_and_refuses_others_in_one_sentence(tiny):
    cluster, build = tiny[0].cluster(), models.builder("mlp-digits")
    one = simulator.simulate(build, Plan(), cluster, 8)
    assert one.step_seconds > 0 and one.fits
    with pytest.raises(ValueError, match="^data 2 needs 2 devices, emulated has 1$"):
        simulator.simulate(build, Plan(data=2), cluster, 8)


def test_attention_is_priced_as_the_gpu_computes_it():
    on_gpu, on_cpu = (
        simulator.simulate(models.builder("gpt-tiny"), Plan(), made().cluster(), 4) for made in (made_up_gpu, made_up)
    )
    ways = {"attention", "attention_grad"}, {"attention_weights", "attention_weights_grad"}
    for prediction, (taken, left) in ((on_gpu, ways), (on_cpu, ways[::-1])):
        calls = {c.name for block in prediction._profile.blocks for c in (*block.forward, *block.backward)}
        assert taken <= calls and not left & calls
    assert on_gpu.memory_bytes < on_cpu.memory_bytes  # no weights of attention are kept
    assert on_gpu.flops == on_cpu.flops  # of the model: that backward makes the weights again raises no MFU


def test_a_plan_is_priced_for_a_gpu_where_there_is_none_without_its_kernels():
    code = """
import sys

from minidl import models
from minidl.parallel import Plan
from simulator import simulate
from simulator.calibration import identity
from tests.simulator.hand_made import made_up_gpu

cluster = made_up_gpu(machine=identity() | {"gpu": "Abacus"}).cluster()
prediction = simulate(models.builder("gpt-tiny"), Plan(), cluster, 4)
print(cluster.name, prediction.step_seconds > 0, "minidl.kernels.cuda" in sys.modules, "numba" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name != "MINIDL_CUDA"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("Abacus True False False\n", "")


def test_the_emulator_is_not_measured_in_the_usual_sizes(capsys):
    for attempt in (lambda: calibrate_function(device="cuda"), lambda: calibration(effort=quick([]), device="cuda")):
        with pytest.raises(ValueError, match=NO_SPEED):
            attempt()
    for command in ("calibrate", "compare", "compare --quick"):
        check_refused(capsys, f"{command} --device cuda", "the emulator of a GPU has no speed to measure")


def test_without_a_gpu_one_line_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("minidl.commands.arguments.missing", lambda: "no NVIDIA driver is installed here")
    for command in ("calibrate", "compare"):
        check_refused(capsys, f"{command} --device cuda", "--device cuda: no NVIDIA driver is installed here")


def test_an_unknown_device_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no device 'meta' to calibrate: there are cpu, cuda"):
        calibration(device="meta")


def test_each_device_has_a_calibration_of_its_own_and_another_gpu_another(measured, monkeypatch, cache_folder):
    for device in ("cpu", "cuda", "cpu", "cuda"):
        assert calibration(device=device).device == device
    assert measured == ["cpu", "cuda"]
    assert cache_path("cuda") == cache_folder / "calibration-cuda.json" and cache_path("cuda") != cache_path()
    assert calibrate_function(device="cuda").name == "Abacus"
    monkeypatch.setattr(cuda, "get_device_name", lambda: "Slide rule")
    assert calibration(device="cuda").machine["gpu"] == "Slide rule"
    assert measured == ["cpu", "cuda", "cuda"]
    cache_path("cuda").write_text(cache_path("cpu").read_text())
    with pytest.warns(UserWarning, match="calibration-cuda.json cannot be used"):
        assert calibration(device="cuda").machine["gpu"] == "Slide rule"


def test_the_drift_of_a_gpu_is_not_that_of_the_cores(monkeypatch):
    monkeypatch.setattr(MODULE, "launch", None)
    assert MODULE.drift(made_up_gpu()) == (1.0, 1.0)


def test_calibrate_says_what_it_found_of_the_gpu(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["calibrate", "--device", "cuda", "--json", str(tmp_path / "c.json")]) == 0
    printed = capsys.readouterr().out
    for piece in ("Abacus", "matrix product 16 × 16 × 16", "100 GFLOP/s", "memory", "1 GB", "calibration-cuda.json"):
        assert piece in re.sub(r"\n", "", printed)
    assert "one core" not in printed and "all_reduce" not in printed
    assert json.loads((tmp_path / "c.json").read_text())["machine"]["gpu"] == "Abacus"


@pytest.mark.parametrize("device", MEASURED_DEVICES)
def test_the_usual_sizes_have_cases_of_each_kind(device):
    sizes = MEASURED_DEVICES[device].sizes
    assert all(list(kind(sizes)) for kind in KINDS) and list(sizes.gemm) == sorted(set(sizes.gemm))
    assert max(MEASURED_DEVICES["cuda"].sizes.gemm) == 4096
