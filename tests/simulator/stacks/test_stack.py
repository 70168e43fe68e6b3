"""stacks/: a stack's rewrites of a profile, and files that are wrong: one sentence each."""

import pytest

from minidl import models
from minidl.parallel import Plan
from minidl.parallel.handle import CollectiveCall
from simulator import Cluster, simulate
from simulator.stacks import Stack
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


def test_what_was_rewritten_is_not_rewritten_again():
    calls = [product(1, 4, 8, 3)]
    assert DEFAULT.rewrite(calls, "bfloat16") is DEFAULT.rewrite(calls, "bfloat16")
    assert DEFAULT.rewrite(list(calls), "bfloat16") is not DEFAULT.rewrite(calls, "bfloat16")


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


def test_a_wrong_file_is_one_sentence_that_names_what_is_wrong(tmp_path):
    path = tmp_path / "mine.toml"
    for text, match in (("name = 3", "mine.toml: name = 3 is not a text"), ("name = ", "mine.toml is not a TOML file")):
        path.write_text(text)
        fails(path, match)
