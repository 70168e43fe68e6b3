"""calibrate.py: the cache, whatever is wrong with it; and one real calibration, which the comparison then uses."""

import json
import math
import sys
import warnings
from copy import deepcopy
from dataclasses import asdict

import pytest

import simulator
from minidl import models, optim
from minidl.commands.train import OPTIMIZERS
from minidl.parallel import Plan
from minidl.parallel.prepare import prepare
from simulator import simulate
from simulator.__main__ import main
from simulator.calibrate import cache_path, calibration, called, quick
from simulator.calibration import Calibration, identity
from simulator.measure import is_quiet, speed_of
from simulator.probes import chains, kernel_times
from simulator.probes.sizes import ON_CPU
from simulator.probes.steps import kernels_of
from tests.simulator.hand_made import made_up

MODULE = sys.modules["simulator.calibrate"]  # its name in the package is the function's


def profile(name, optimizer=None):
    """That of a model by name, on four samples."""
    return prepare(models.builder(name), Plan(), 4, optimizer=optimizer).profile


@pytest.fixture
def measured(monkeypatch):
    """Replaces the measurement by a made-up one; a list of what it was asked for."""
    asked = []
    monkeypatch.setattr(MODULE, "measure", lambda progress, effort, device: asked.append(effort) or made_up())
    return asked


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_calibrate_is_one_of_the_three_names_of_the_package(measured):
    cluster = simulator.calibrate()
    assert isinstance(cluster, simulator.Cluster) and cluster.name == "this machine"
    assert cluster.processors.cores == cluster.devices == identity()["cores"]


def test_a_calibration_is_measured_once_and_read_again(measured, no_warning, cache_folder):
    first = calibration()
    assert cache_path() == cache_folder / "calibration.json" and cache_path().exists()
    assert calibration() == first and len(measured) == 1
    assert calibration(refresh=True) == first and len(measured) == 2


def test_what_was_cached_prices_as_what_was_measured(measured):
    fresh, cached = calibration().cluster(), calibration().cluster()
    build, plan = models.builder("mlp-digits"), Plan(data=2, tensor=2)
    assert simulate(build, plan, fresh, 8).step_seconds == simulate(build, plan, cached, 8).step_seconds


def test_a_calibration_of_less_effort_is_used_once(measured, no_warning):
    effort = quick([profile("mlp-digits")])
    assert calibration(effort=effort) == made_up() and measured == [effort]
    assert not cache_path().exists()
    calibration()
    assert calibration(effort=effort) == made_up() and len(measured) == 2  # the better one is there


@pytest.mark.parametrize(("name", "chosen"), [("mlp-digits", ["dense"]), ("cnn-digits", ["dense", "images"])])
def test_chains_are_timed_that_call_the_kernels_that_matter_and_no_others(name, chosen):
    names = called(profile(name, optim.SGD))
    kinds = chains.kinds(names, ON_CPU, "cpu")
    assert [kind.__name__ for kind in kinds] == chosen
    cases = [case for kind in kinds for case in kind(ON_CPU)]
    assert names - {"load"} <= set().union(*(kernels_of(case, "cpu") for case in cases))


BROKEN = {
    "nothing": b"",
    "half a file": json.dumps(asdict(made_up())).encode()[:200],
    "no JSON": b"calibrated",
    "no text": b"\xff\xfe\x00\x80",
    "a list": b"[1, 2]",
    "null": b"null",
    "another table": b'{"machine": {}}',
    "a table too much": json.dumps(asdict(made_up()) | {"colour": 1}).encode(),
    "no products": json.dumps(asdict(made_up(compute={}))).encode(),
    "no times of products": json.dumps(asdict(made_up(compute=made_up().compute | {"gemm_seconds": []}))).encode(),
    "no kernels": json.dumps(asdict(made_up(compute=made_up().compute | {"kernels": {}}))).encode(),
    "words for times": json.dumps(asdict(made_up(compute=made_up().compute | {"gemm_seconds": ["a"] * 8}))).encode(),
    "no network": json.dumps(asdict(made_up(network={}))).encode(),
    "no collectives": json.dumps(asdict(made_up(network=made_up().network | {"collectives": {}}))).encode(),
    "no messages": json.dumps(asdict(made_up(network=made_up().network | {"send": []}))).encode(),
    "products of one size": json.dumps(asdict(made_up(compute=made_up().compute | {"gemm_sizes": [4, 4]}))).encode(),
    "falling sizes": json.dumps(asdict(made_up(compute=made_up().compute | {"python": [[9, 1], [8, 1]]}))).encode(),
    "no version": json.dumps(asdict(made_up(version=None))).encode(),
    "brackets": b"[" * 100_000,
    "a number too long": json.dumps(asdict(made_up())).replace("1e-06", "9" * 5000).encode(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_corrupt_cache_is_measured_again_with_a_warning_and_replaced(measured, content):
    cache_path().parent.mkdir(parents=True)
    cache_path().write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"the calibration cache .*calibration.json cannot be used \(.*measuring again"
    ):
        found = calibration()
    assert found == made_up() and len(measured) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibration() == found and len(measured) == 1


def figures(table, path=()):
    """The path of every number below `table`."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if isinstance(value, dict | list):
            yield from figures(value, (*path, key))
        elif isinstance(value, int | float):
            yield (*path, key)


def test_no_figure_is_taken_that_is_not_a_number_in_its_range(measured):
    good = json.loads(json.dumps(asdict(made_up())))
    places = [place for place in figures(good) if place[0] not in ("machine", "version", "quiet")]
    assert len(places) > 40
    cache_path().parent.mkdir(parents=True)
    for place in places:
        for wrong in (None, "x", math.nan, math.inf, -1, True, []):
            table = deepcopy(good)
            *above, key = place
            entry = table
            for part in above:
                entry = entry[part]
            entry[key] = wrong
            cache_path().write_text(json.dumps(table))
            with pytest.raises(ValueError, match=str(key)):
                MODULE._read(cache_path())
    assert not measured


@pytest.mark.parametrize(
    "other",
    [
        made_up(version=0),
        made_up(machine=identity() | {"processor": "Abacus"}),
        made_up(machine=identity() | {"cores": 77}),
        made_up(machine=identity() | {"numpy": "0.1"}),
    ],
)
def test_a_cache_of_another_machine_or_version_is_measured_again_without_a_word(measured, no_warning, other):
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text(json.dumps(asdict(other)))
    assert calibration() == made_up() and len(measured) == 1
    assert json.loads(cache_path().read_text())["version"] == made_up().version


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_result(measured, cache_folder):
    cache_folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="the calibration cannot be cached in .*calibration.json") as said:
        assert calibration() == made_up()
    assert len(said) == 1


def test_a_folder_in_place_of_the_cache_costs_a_warning_and_no_result(measured):
    cache_path().mkdir(parents=True)
    with pytest.warns(UserWarning):
        assert calibration() == made_up()


def test_nobody_sees_half_a_cache(measured, monkeypatch):
    """Whatever ends the writing, the old file is whole or the new one is."""
    calibration()
    old = cache_path().read_text()
    monkeypatch.setattr(MODULE.json, "dumps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibration(refresh=True)
    assert cache_path().read_text() == old


def test_a_full_disk_leaves_the_old_cache_and_nothing_beside_it(measured, monkeypatch):
    calibration()
    old = cache_path().read_text()
    path_type = type(cache_path())

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(path_type, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        calibration(refresh=True)
    assert [path.name for path in cache_path().parent.iterdir()] == ["calibration.json"]
    assert cache_path().read_text() == old


def test_a_folder_that_may_not_be_looked_into_costs_a_warning_and_no_result(measured, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(MODULE.json_files, "read_json", refused)
    with pytest.warns(UserWarning, match="cannot be used .*Permission denied"):
        assert calibration() == made_up()


def test_without_a_home_the_calibration_is_measured_and_not_kept(measured, monkeypatch):
    monkeypatch.setattr(MODULE, "cache_folder", lambda: None)
    assert cache_path() is None
    with pytest.warns(UserWarning, match="is not kept: there is no home, name a folder in MINIDL_CACHE"):
        assert calibration() == made_up()


# For real


@pytest.mark.parametrize(("times", "quiet"), [
    ([1.0, 1.1, 1.2, 1.0, 1.2], True), ([1.0, 1.0, 5.0, 1.0, 1.0], True), ([1.0, 1.0, 2.0, 2.0, 1.0], False),
    ([1.0, 2.0, 2.0, 2.0, 2.0], False),
])  # fmt: skip
def test_a_machine_is_quiet_if_all_probes_but_the_slowest_take_as_long(times, quiet):
    assert is_quiet(times) is quiet


def test_the_speed_is_that_of_rank_0_alone_and_of_all_together():
    assert speed_of([(1.0, 2.0), (0.0, 4.0)]) == (1.0, 3.0)


def test_no_time_of_a_kernel_is_of_one_slow_round():
    (chain, *_) = chains.dense(ON_CPU)
    step = kernel_times._TimedStep(chain, "cpu")
    for _ in range(3):
        step.run_timed()
    assert len(step.seconds) == len(step.pauses) == 3 * kernel_times.TIMES
    calm = [[1.0] * len(step.calls)] * 2 * kernel_times.TIMES
    step.seconds = step.pauses = [*calm, *([[1e3] * len(step.calls)] * kernel_times.TIMES)]
    samples, pauses = {}, {}
    step.add_kernels(samples)
    step.add_pauses(pauses)
    assert {"relu", "relu_grad", "copy", "add", "sgd_update"} <= samples.keys()
    assert {t for sizes in samples.values() for times in sizes.values() for t in times} == {1.0}
    assert {t for times in pauses.values() for t in times} == {1.0}


@pytest.fixture(scope="module")
def real(real_calibration):
    return real_calibration


def test_a_real_calibration_is_of_positive_finite_times(real):
    found, said = deepcopy(real)
    assert len(said) == 5 and found.machine == identity()
    may_be_zero = found.compute.pop("instruction_seconds")
    assert may_be_zero >= 0 and math.isfinite(may_be_zero)
    points = [found.compute["python"], *found.compute["kernels"].values(), *found.network["collectives"].values()]
    for sizes in (*points, found.network["send"], found.network["receive"]):
        assert sizes == sorted(sizes) and sizes[0][0] >= 0  # a view moves no bytes
        assert all(math.isfinite(seconds) and seconds > 0 for _, seconds in sizes)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.compute["gemm_seconds"])
    assert len(found.compute["gemm_seconds"]) == len(ON_CPU.gemm) ** 3
    assert min(factor for _, factor in found.compute["contention"]) >= 1
    assert found.compute["matmul_contention"] >= 1 and found.oversubscription >= 1 and found.turn_seconds >= 0
    assert found.memory_bytes > 1e8 and found.peak_flops > 1e8 and min(found.probe_seconds) > 0
    assert Calibration(**json.loads(json.dumps(asdict(real[0])))) == real[0]


def test_a_real_calibration_is_printed_within_80_columns(real, cache_folder, monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # a command may change it
    monkeypatch.setenv("COLUMNS", "80")
    cache_folder.mkdir()
    cache_path().write_text(json.dumps(asdict(real[0])))
    assert main(["calibrate"]) == 0
    printed = capsys.readouterr().out
    assert "matrix product 1024" in printed and max(map(len, printed.splitlines())) <= 80


def test_every_kernel_of_the_models_has_been_timed(real):
    """What is not in the table is priced as an addition: that must be the exception."""
    timed = real[0].compute["kernels"].keys() | {"matmul", "load"}
    for name in ("mlp-digits", "cnn-digits", "gpt-tiny", "resnet-digits", "lstm-digits", "vae-digits"):
        names = called(profile(name))
        assert len(names - timed) <= 2, names - timed


@pytest.mark.parametrize("cls", [cls for _, cls in OPTIMIZERS.values() if isinstance(cls, type)])
def test_every_optimizer_has_been_timed(real, cls):
    assert called(profile("mlp-digits", cls)) - {"matmul", "load"} <= real[0].compute["kernels"].keys()


def test_a_real_calibration_prices_every_plan(real):
    cluster = real[0].cluster()
    build = models.builder("mlp-784")
    steps = {}
    for plan in (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=4), Plan(tensor=2), Plan(data=2, tensor=2)):
        prediction = simulate(build, plan, cluster, 64)
        assert 0 < prediction.step_seconds < 60 and 0 < prediction.mfu < 2
        steps[plan] = prediction.step_seconds
    assert simulate(build, Plan(), cluster, 256).step_seconds > steps[Plan()]
