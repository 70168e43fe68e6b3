"""`python -m simulator methods`: what its methods are and cost, and what is printed, written and refused."""

import json

import pytest

from simulator.__main__ import main
from simulator.methods import METHODS, chosen_methods
from tests.simulator.command import check_refused, help_text

pytestmark = pytest.mark.usefixtures("calibrated", "warm_workers")


def test_the_methods_have_different_names_and_say_what_they_are_when_they_pay_and_who_published_them():
    assert len({method.name for method in METHODS}) == len(METHODS)
    for method in METHODS:
        assert method.what and method.pays and "20" in method.source or "19" in method.source


def test_each_method_can_be_trained_by_two_workers():
    for method in METHODS:
        (plan,) = method.experiment(2).plans
        assert plan.workers == 2


def test_methods_are_chosen_by_name():
    assert [method.name for method in chosen_methods(["1f1b", "data"])] == ["1f1b", "data"]
    assert chosen_methods([]) == list(METHODS)


def test_on_a_cluster_all_is_simulated(capsys, tmp_path):
    path = tmp_path / "methods.json"
    assert main(f"methods --cluster dgx-a100 --workers 4 --json {path} --method data --method 1f1b".split()) == 0
    out = capsys.readouterr().out
    assert "Li et al. 2020" in out and max(map(len, out.splitlines())) <= 80
    document = json.loads(path.read_text())
    assert [row["name"] for row in document["rows"]] == ["data", "1f1b"] and document["mean_absolute_error"] is None
    for row in document["rows"]:
        assert row["workers"] == 4 and row["simulated_step_seconds"] > 0 and row["measured_step_seconds"] is None
        assert row["memory_bytes"] < row["one_worker_memory_bytes"] and sum(row["sent"].values()) > 0


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("methods --method nothing", "unknown method 'nothing': there are data, "),
        ("methods --method data --method data", "the method data is given twice"),
        ("methods --workers 999", "this machine has .* cores"),
        ("methods --workers 0", "not a whole number of at least 1"),
        ("methods --cluster nowhere", "no cluster 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(capsys, line, match):
    check_refused(capsys, line, match)


def test_help_names_the_methods_and_gives_two_examples(capsys):
    text = help_text(capsys, "methods")
    assert all(method.name in text for method in METHODS) and text.count("python -m simulator methods") >= 2
