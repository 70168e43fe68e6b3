"""The group on MPI: ranks that mpiexec starts do what workers of shared memory do; two where more prove no more."""

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from minidl import ranks
from minidl.parallel import Plan
from tests.leftovers import GUARD, alive, until
from tests.parallel import on_ranks

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
MPIEXEC = Path(sys.executable).with_name("mpiexec")  # which the wheel of mpich brings

needs_mpi = pytest.mark.skipif(
    not (find_spec("mpi4py") and MPIEXEC.exists()), reason="needs mpi4py and mpich, which the extra `test` brings"
)


def on_ranks_of_mpi(ranks, *arguments):
    """Python under mpiexec; whatever became of it, none of its processes is left.

    MPICH leaves its shared memory behind where its ranks are killed.
    """
    before = set(SHARED_MEMORY.glob("mpich_shm_*"))
    marker = f"MINIDL_TEST_MPI_{os.getpid()}_{os.urandom(4).hex()}"
    variables = os.environ | {"PYTHONPATH": str(ROOT), "MINIDL_TEST_MARKER": marker}
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5 * GUARD
    )
    until(lambda: not alive(marker))
    for left in {*SHARED_MEMORY.glob("mpich_shm_*")} - before:
        left.unlink(missing_ok=True)
    return done


def script(name, path="", ranks=on_ranks.RANKS):
    return on_ranks_of_mpi(ranks, on_ranks.__file__, name, path)


def difference(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@needs_mpi
def test_every_method_of_the_group_gives_what_numpy_gives_with_the_same_bits_on_every_rank(tmp_path):
    done = script("contract", tmp_path / "told")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "told").read_text() == "all as it should be"


@needs_mpi
@pytest.mark.usefixtures("warm_workers")  # for the one that they are compared with
def test_every_plan_trains_on_mpi_as_one_worker_does_on_shared_memory(tmp_path):
    done = script("plans", tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    losses, evaluations, state = on_ranks.numbers(on_ranks.trained(Plan()))
    found = pickle.loads((tmp_path / "found").read_bytes())
    assert found.keys() == {*on_ranks.PLANS, "gone on"}
    for name, (ours, evaluated, parameters) in found.items():
        first = 2 if name == "gone on" else 0
        assert difference(ours, losses[first:]) < 1e-10, name
        steps = [evaluation for evaluation in evaluations if evaluation[0] > first]
        assert difference(evaluated, steps) < 1e-10, name
        assert parameters.keys() == state.keys()
        assert difference(*(np.concatenate([s[key].ravel() for key in state]) for s in (parameters, state))) < 1e-10


@needs_mpi
@pytest.mark.usefixtures("warm_workers")
def test_layers_that_ranks_share_train_on_mpi_as_on_one_worker(tmp_path):
    done = script("shared", tmp_path / "found")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, (losses, _, parameters) in pickle.loads((tmp_path / "found").read_bytes()).items():
        build, _ = on_ranks.SHARED[name]
        expected, _, state = on_ranks.numbers(on_ranks.sharing(build, Plan()))
        kept = [key for key in state if not key.endswith("dropped")]
        assert difference(losses, expected) < 1e-10, name
        assert difference(*(np.concatenate([s[key].ravel() for key in kept]) for s in (parameters, state))) < 1e-10


@needs_mpi
def test_a_callback_that_raises_stops_all_ranks_before_the_same_step(tmp_path):
    done = script("stopped", tmp_path / "raised")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "raised").read_text() == "ArithmeticError"


@needs_mpi
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raises", ["rank 2 of 4 raised", "ArithmeticError: what rank 2 has to say"]),
        ("raises_later", ["rank 0 of 4 raised", "ArithmeticError: outside of launch"]),
        ("killed", ["rank 2 of 4 (process "]),
    ],
)
def test_a_rank_that_dies_ends_the_job_with_its_name(what, said):
    done = script(what)
    assert done.returncode != 0
    assert all(text in done.stderr for text in said), done.stderr
    assert done.stderr.count(" raised") + done.stderr.count(" died") == 1


@needs_mpi
def test_another_number_of_ranks_than_workers_is_refused_by_one_rank():
    done = script("too_many", ranks=2)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "ValueError: 2 ranks were started, and 4 are needed: start the program with -n 4" in done.stderr


@needs_mpi
def test_on_the_command_line_the_first_rank_alone_prints_and_writes(tmp_path):
    files = {name: tmp_path / name for name in ("run.json", "log.csv", "trace.json")}
    done = on_ranks_of_mpi(
        4, "-m", "minidl", "train", "--steps", 5, "--data", 2, "--pipeline", 2, "--micro-batches", 2,
        "--json", files["run.json"], "--log", files["log.csv"], "--trace", files["trace.json"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mlp-digits") == 1 and done.stderr.count("step 5/5") == 1
    assert len(json.loads(files["run.json"].read_text())["losses"]) == 5
    assert len(files["log.csv"].read_text().splitlines()) == 6 and files["trace.json"].exists()


@needs_mpi
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--data", "4"], "minidl: 2 ranks were started, and 4 are needed: start the program with -n 4\n"),
        (["--dta", "2"], "minidl: unrecognized arguments: --dta 2 (see `python -m minidl --help`)\n"),
    ],
)
def test_wrong_arguments_give_one_line_and_exit_code_2(arguments, line):
    done = on_ranks_of_mpi(2, "-m", "minidl", "train", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


RANK_2 = "import sys; sys.argv = ['minidl', 'train', '--data', '4', '--steps', '2']; from minidl.__main__ import main; "


@needs_mpi
@pytest.mark.slow
def test_a_rank_that_alone_cannot_do_what_was_asked_for_ends_all_with_its_name():
    done = on_ranks_of_mpi(
        4, "-c", RANK_2 + "from minidl.ranks import rank_and_size\n"
        "if rank_and_size()[0] == 2: sys.argv[-1] = 'two'\n"
        "sys.exit(main())",
    )  # fmt: skip
    assert done.returncode != 0
    assert "rank 2 of 4 ended:\n\nminidl: argument --steps" in done.stderr


WITHOUT = """
import sys
from importlib import util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "mpi4py" else find(name, *rest)
from minidl.__main__ import main
sys.exit(main(["train", "--data", "2"]))
"""


@needs_mpi
def test_where_mpi4py_is_missing_one_sentence_says_what_to_install():
    done = on_ranks_of_mpi(2, "-c", WITHOUT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "minidl: to run on 2 ranks minidl needs mpi4py: pip install 'minidl[mpi]'\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, (3, 8)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, (1, 2)),
        ({"PMIX_RANK": "5", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_NTASKS": "6"}, (5, 6)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, (0, 1)),  # a batch script itself is no rank
    ],
)
def test_the_rank_is_the_launchers_word(variables, expected, monkeypatch):
    for name in {name for names in ranks.VARIABLES for name in names}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks.rank_and_size() == expected and ranks.leads() == (expected[0] == 0)


def test_nothing_of_mpi_is_imported_where_no_ranks_were_started():
    code = "import sys; from minidl.parallel import launch; launch(lambda group: 1, 1); print('mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=GUARD)
    assert done.stdout == "False\n"
