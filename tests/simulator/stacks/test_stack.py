"""stacks/: a stack's rewrites of a profile, and files that are wrong: one sentence each."""

import re
import shlex

import pytest

from minidl import models
from minidl.parallel import Plan
from minidl.parallel.handle import CollectiveCall
from simulator import Cluster, simulate
from simulator.__main__ import main
from simulator.stacks import Stack
from simulator.stacks.stack import ENTRIES, FOLDER, tomllib
from tests.simulator.kernel_calls import elementwise, product

DEFAULT = Stack.load("default")


def test_lower_precision_changes_dtype_and_bytes_of_all_floats_but_the_optimizers():
    kinds = "elementwise", "copy", "normalisation"
    calls = [product(1, 4, 8, 3), *(elementwise(kind=kind) for kind in kinds), elementwise(kind="update")]
    for precision in ("bfloat16", "float16"):
        *lowered, update = DEFAULT.rewrite(calls, precision)
        for call, before in zip(lowered, calls, strict=False):
            assert (call.dtype, call.flops, call.shapes) == (precision, before.flops, before.shapes)
            assert (call.bytes_read, call.bytes_written) == (before.bytes_read / 2, before.bytes_written / 2)
        assert update == calls[-1]
    assert DEFAULT.rewrite(calls, "float32") == calls


def test_what_is_not_of_float32_and_collectives_stay_as_they_are():
    calls = [*(elementwise("index", 12000, 0, dtype) for dtype in ("int64", "bool", "float64"))]
    calls.append(CollectiveCall("all_reduce", ("tensor",), 2, 100))
    assert DEFAULT.rewrite(calls, "bfloat16") == calls


def test_a_step_in_lower_precision_is_faster_and_its_utilisation_refers_to_that_precision():
    where = Cluster.load("dgx-a100", devices=1)
    full, half = (simulate(models.builder("gpt2-small"), Plan(precision=p), where, 8) for p in ("float32", "bfloat16"))
    assert half.step_seconds < full.step_seconds / 3
    for p, peak in ((full, 19.5e12), (half, 312e12)):
        assert p.mfu == pytest.approx(p.flops / p.step_seconds / peak)


def fails(name, match):
    with pytest.raises(ValueError, match=match) as caught:
        Stack.load(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_stack_lists_those_there_are(tmp_path):
    fails("torch", r"no stack 'torch': neither a file nor one of .*default")
    fails(tmp_path, "neither a file nor one of")  # a folder


@pytest.mark.parametrize("what", [Stack, Cluster])
def test_what_is_neither_a_name_nor_a_path_is_refused(what):
    with pytest.raises(TypeError, match=f"{what.__name__.lower()} must be a name or a path, not 5"):
        what.load(5)


def test_a_wrong_file_is_one_sentence_that_names_what_is_wrong(tmp_path):
    path = tmp_path / "mine.toml"
    for text, match in (
        ("name = 3", "mine.toml: name = 3 is not a text"),
        ("name = ", "mine.toml is not a TOML file"),
        ("", "mine.toml: the file lacks 'name'"),
        (
            'name = "x"\nfusion = 1',
            "mine.toml: the file has an unknown 'fusion': it may have name, like, extra, dropout",
        ),
        ('name = "x"\npasses = 2', r"mine.toml: passes = 2 is not a table: write { value = 2 }"),
        ('name = "x"\npasses = { value = 0 }', "mine.toml: passes.value = 0 is not a positive number"),
        ('name = "x"\nfused = { value = [[]] }', r"fused.value\[0\] = \[\] is not a list with something in it"),
        ('name = "x"\nfused = { value = [["nokernel", "add"]] }', r"fused.value\[0\]\[0\] = 'nokernel' is no kernel"),
        ('name = "x"\nattention = { value = "fast" }', "attention.value = 'fast' is not one of"),
        ('name = "x"\nproducts = { value = "float7" }', "products.value = 'float7' is not one of"),
        ('name = "x"\n[[extra]]\nafter = "gelu"\nkernels = 1', r"mine.toml: extra\[0\] lacks 'passes'"),
        ('name = "x"\nlike = "torch"', "mine.toml: like = 'torch' is none of .*default"),
    ):
        path.write_text(text)
        fails(path, match)


def test_a_stack_is_like_another_but_for_what_its_file_says(tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.stacks.stack.FOLDER", tmp_path)
    one = 'name = "one"\npasses = { value = 1.5, source = "s" }\n[[extra]]\nafter = "gelu"\nkernels = 2\npasses = 3\n'
    (tmp_path / "one.toml").write_text(one)
    (tmp_path / "two.toml").write_text('name = "two"\nlike = "one"\ndispatch_us = { value = 5 }\n')
    two = Stack.load(tmp_path / "two.toml")
    assert (two.key, two.name, two.passes, two.dispatch_us) == ("two", "two", 1.5, 5)
    assert two.extra == (("gelu", 2, 3),)
    (tmp_path / "one.toml").write_text('name = "one"\nlike = "two"\n')
    fails(tmp_path / "one.toml", "like = 'one' goes round in a circle")


def test_the_page_explains_every_entry_and_its_example_is_predicted(tmp_path, monkeypatch, capsys):
    page = (FOLDER / "README.md").read_text()
    explained = re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
    assert {name for cell in explained for name in re.findall(r"`(\w+)`", cell)} == ENTRIES.keys()
    text, line = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("toml", "sh"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-stack.toml").write_text(text)
    assert main(shlex.split(line)[3:]) == 0
    assert "my framework" in capsys.readouterr().out


@pytest.mark.parametrize("name", Stack.names())
def test_every_stack_loads_and_every_entry_has_a_source(name):
    stack = Stack.load(name)
    assert stack.key == name and stack.name
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    for entry in [entry for entry in table.values() if isinstance(entry, dict)] + table.get("extra", []):
        assert len(entry["source"]) > 7, entry
