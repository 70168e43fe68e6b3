"""stacks/rewrite.py: kernels that are added, left out, fused and lowered: bytes and counts by hand."""

from dataclasses import replace

from minidl.kernels.meta import KernelCall
from minidl.parallel.handle import CollectiveCall
from simulator.stacks import Stack
from simulator.stacks.extra import Extra

DEFAULT = Stack.load("default")
X, Y, BIAS = (4, 8), (4, 16), (16,)  # 32, 64 and 16 numbers


def call(name, kind, *shapes, dtype="float32"):
    """One that reads all of `shapes` but the last, which it writes."""
    sizes = [4 * _count(shape) for shape in shapes]
    return KernelCall(name, kind, shapes, dtype, 1, sum(sizes[:-1]), sizes[-1])


def _count(shape):
    return shape[0] * shape[1] if len(shape) == 2 else shape[0]


MATMUL = KernelCall("matmul", "product", ((1, 4, 16, 8),), "float32", 1024, 4 * (32 + 128), 4 * 64)
SCORES = KernelCall("matmul", "product", ((3, 4, 16, 8),), "float32", 1024, 4 * 3 * (32 + 128), 4 * 3 * 64)
ADD_BIAS = call("accumulate", "elementwise", Y, BIAS, Y)
GELU = call("gelu", "elementwise", Y, Y)
SUM = call("sum", "reduction", Y, BIAS)
VIEW = KernelCall("reshape", "view", (Y, (64,)), "float32", 0, 0, 0)
REDUCE = CollectiveCall("all_reduce", ("tensor",), 2, 256)


def rewritten(calls, precision="float32", **changes):
    return list(replace(DEFAULT, **changes).rewrite(calls, precision))


def moved(calls):
    return [(c.bytes_read, c.bytes_written) for c in calls]


def test_what_a_fused_group_has_between_its_kernels_is_neither_written_nor_read():
    (one,) = rewritten([ADD_BIAS, GELU], fused=(("accumulate", "gelu"),))
    assert (one.name, one.kind, one.flops) == ("accumulate+gelu", "elementwise", 2)
    assert (one.bytes_read, one.bytes_written) == (4 * (64 + 16), 4 * 64)


def test_a_bias_in_the_epilogue_of_a_product_is_read_and_no_more():
    (one,) = rewritten([MATMUL, VIEW, ADD_BIAS], fused=(("matmul", "accumulate"),))
    assert (one.name, one.kind, one.shapes) == ("matmul", "product", MATMUL.shapes)
    assert (one.bytes_read, one.bytes_written) == (MATMUL.bytes_read + 4 * 16, 4 * 64)


def test_a_longer_group_goes_before_a_shorter_one():
    groups = ("accumulate", "gelu"), ("matmul", "accumulate", "gelu")
    assert len(rewritten([MATMUL, ADD_BIAS, GELU], fused=groups)) == 1


def test_a_collective_parts_a_group_and_so_does_an_array_that_is_another():
    groups = (("accumulate", "gelu"),)
    assert rewritten([ADD_BIAS, REDUCE, GELU], fused=groups) == [ADD_BIAS, REDUCE, GELU]
    other = call("gelu", "elementwise", X, X)
    assert rewritten([ADD_BIAS, other], fused=groups) == [ADD_BIAS, other]


def test_a_compiled_stack_fuses_all_that_is_no_product_in_a_row():
    norm = call("layer_norm", "normalisation", Y, Y)
    found = rewritten([MATMUL, ADD_BIAS, GELU, norm, MATMUL, GELU], fused_chains=True)
    assert [c.name for c in found] == ["matmul", "accumulate+gelu+layer_norm", "matmul", "gelu"]
    assert found[1].kind == "normalisation" and moved(found[1:2]) == [(4 * (64 + 16), 4 * 64)]
    groups = (("matmul", "accumulate"),)  # a product does no more than a bias beside
    found = rewritten([MATMUL, ADD_BIAS, GELU, norm], fused=groups, fused_chains=True)
    assert [c.name for c in found] == ["matmul", "gelu+layer_norm"]


def test_what_a_sum_at_the_end_is_made_of_is_written_for_others():
    (one,) = rewritten([GELU, SUM], fused_chains=True)
    assert (one.bytes_read, one.bytes_written) == (4 * 64, 4 * (64 + 16))


def test_extra_kernels_follow_those_of_a_name_and_move_what_these_have_made():
    found = rewritten([GELU, ADD_BIAS], extra=(Extra("gelu", 2, 5.0),))
    assert [c.name for c in found] == ["gelu", "extra", "extra", "accumulate"]
    assert sum(c.bytes_read + c.bytes_written for c in found[1:3]) == 5 * 4 * 64
    (scores, extra) = rewritten([SCORES], extra=(Extra("matmul", 1, 2.0),))
    assert moved([extra]) == [(4 * 3 * 64, 4 * 3 * 64)] and scores == SCORES


def test_gradients_are_added_up_by_products_or_by_kernels_of_their_own():
    adds = call("accumulate", "elementwise", Y, Y, Y), call("assign", "copy", Y, Y)
    assert rewritten([MATMUL, *adds, ADD_BIAS], accumulates_in_products=True) == [MATMUL, ADD_BIAS]
    gradient = replace(MATMUL, options=("TN", False))  # of a weight (4, 16), which the first of `adds` adds up
    (one,) = rewritten([gradient, *adds], accumulates_in_products=True)
    assert one.options == ("TN", True) and moved([one]) == [(MATMUL.bytes_read + 4 * 64, 4 * 64)]
    assert rewritten([gradient, adds[1]], accumulates_in_products=True) == [gradient]  # the first of a step


def test_passes_change_the_bytes_of_what_is_neither_a_product_nor_an_update():
    update = call("adam_update", "update", Y, Y)
    found = rewritten([MATMUL, GELU, update], passes=1.5, update_passes=2.0)
    assert moved(found) == [*moved([MATMUL]), (384, 384), (512, 512)]


def test_updates_at_once_are_one_kernel_with_the_bytes_of_all():
    updates = [call("adam_update", "update", shape, shape) for shape in (X, Y, BIAS)]
    (one,) = rewritten(updates, update_at_once=True)
    assert moved([one]) == [(4 * (32 + 64 + 16), 4 * (32 + 64 + 16))]


def test_products_of_linear_layers_have_a_dtype_of_their_own_and_attention_has_not():
    for products, share in (("float8", 0.5), ("int8", 0.5), ("float4", 0.25)):
        linear, scores, gelu = rewritten([MATMUL, SCORES, GELU], "bfloat16", products=products)
        assert [c.dtype for c in (linear, scores, gelu)] == [products, "bfloat16", "bfloat16"]
        assert moved([linear]) == [(MATMUL.bytes_read / 2 * share, MATMUL.bytes_written / 2)]
    (of_experts,) = rewritten([SCORES], "bfloat16", products="float8", attention="flash")  # as attention has none
    assert of_experts.dtype == "float8"
    cast, _ = rewritten([MATMUL], "bfloat16", products="float8", cast_passes=1.5)
    assert sum(*moved([cast])) == 1.5 * 2 * (32 + 128)


def test_all_products_and_convolutions_are_in_tfloat32_with_the_bytes_of_float32():
    conv = call("conv2d", "convolution", X, Y)
    found = rewritten([MATMUL, SCORES, conv, GELU], products="tfloat32")
    assert [c.dtype for c in found] == ["tfloat32"] * 3 + ["float32"]
    assert moved(found) == moved([MATMUL, SCORES, conv, GELU])


def test_without_overlap_a_collective_is_waited_for_where_it_is_started():
    calls = [replace(REDUCE, phase="start", number=3), MATMUL, replace(REDUCE, phase="wait", number=3)]
    assert rewritten(calls) == calls
    assert rewritten(calls, tensor_overlap=False) == [replace(REDUCE, number=3), MATMUL]
