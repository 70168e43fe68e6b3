"""Wrong input to an op is refused in the user's words."""

import pytest

import minidl
from minidl import ops


def test_class_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"targets lie in \[0, 3\], the classes in \[0, 3\)"):
        ops.cross_entropy_sum(minidl.ones(2, 3), minidl.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"embedding: indices lie in \[-1, 1\]"):
        ops.embedding(minidl.tensor([-1, 1]), minidl.ones(3, 2))


def test_class_indices_must_be_integers():
    with pytest.raises(TypeError, match="int64"):
        ops.cross_entropy_sum(minidl.ones(2, 3), minidl.ones(2))
    with pytest.raises(TypeError, match="int64"):
        ops.embedding(minidl.ones(2), minidl.ones(3, 2))


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "argmax", "argmin"])
def test_the_extreme_of_nothing_is_refused(name):
    x = minidl.ones(2, 0)
    with pytest.raises(ValueError, match=r"of a tensor of shape \(2, 0\): there are no elements"):
        getattr(minidl, name)(x)
    with pytest.raises(ValueError, match=r"over dims \(1,\)"):
        getattr(minidl, name)(x, 1)
    assert getattr(minidl.ones(0, 2), name)(1) is not None  # nothing of something


def test_a_dimension_must_be_one_that_there_is():
    x = minidl.ones(2, 3)
    for call in (lambda: x.max((0, 1)), lambda: x.prod((0, 1)), lambda: x.softmax(None), lambda: x.sum("a")):
        with pytest.raises(TypeError, match="must be (an int|ints)"):
            call()
    for call in (minidl.ones(()).prod, minidl.ones(()).max, minidl.ones(()).argmax):
        with pytest.raises(IndexError, match="dim 1 is out of range"):
            call(1)
    assert minidl.ones(()).prod(-1).item() == minidl.ones(()).max(0).values.item() == 1


ALONG = {  # functions of a tensor and dim
    **{name: getattr(ops, name) for name in (
        "sum", "mean", "prod", "logsumexp", "cumsum", "any", "all", "amax", "amin", "max", "min", "argmax", "argmin",
        "sort", "argsort", "softmax", "log_softmax", "unsqueeze", "squeeze", "flip", "unbind", "permute", "flatten",
    )},
    "norm": lambda x, dim: x.norm(2, dim),
    "topk": lambda x, dim: x.topk(1, dim),
    "var": lambda x, dim: x.var(dim, True),
    "std": lambda x, dim: x.std(dim, True),
    "chunk": lambda x, dim: x.chunk(1, dim),
    "split": lambda x, dim: x.split(1, dim),
    "narrow": lambda x, dim: x.narrow(dim, 0, 1),
    "repeat_interleave": lambda x, dim: x.repeat_interleave(2, dim),
    "roll": lambda x, dim: x.roll(1, dim),
    "transpose": lambda x, dim: x.transpose(0, dim),
    "movedim": lambda x, dim: x.movedim(dim, 0),
    "diagonal": lambda x, dim: x.diagonal(0, dim, 1),
    "gather": lambda x, dim: x.gather(dim, x.long()),
    "scatter": lambda x, dim: x.scatter(dim, x.long(), 1),
    "index_select": lambda x, dim: x.index_select(dim, x.long().reshape(-1)[:1]),
    "take_along_dim": lambda x, dim: x.take_along_dim(x.long(), dim),
    "cat": lambda x, dim: ops.cat([x, x], dim),
    "stack": lambda x, dim: ops.stack([x, x], dim),
    "size": lambda x, dim: x.size(dim),
}  # fmt: skip


@pytest.mark.parametrize("dim", [True, False, 1.0, (True,), (None,)], ids=str)
@pytest.mark.parametrize("name", ALONG)
def test_a_dimension_is_an_int_and_no_bool(name, dim):
    for x in minidl.zeros(2, 3), minidl.zeros(2, 3, device="meta"), minidl.zeros(()):
        with pytest.raises(TypeError, match="must be (an int|ints)"):
            ALONG[name](x, dim)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("length", lambda x: x.narrow(0, 0, True)),
        ("start", lambda x: x.narrow(0, False, 1)),
        ("chunks", lambda x: x.chunk(True)),
        ("split_size", lambda x: x.split(True)),
        ("split_size", lambda x: x.split([True, True])),
        ("k", lambda x: x.topk(True)),
        ("repeats", lambda x: x.repeat_interleave(True)),
        ("shifts", lambda x: x.roll(True)),
        ("diagonal", lambda x: x.tril(True)),
        ("offset", lambda x: x.diagonal(True)),
        ("diagonal", lambda x: x.diag(True)),
        ("pad", lambda x: ops.pad(x, (True, 1))),
        ("num_classes", lambda x: ops.one_hot(x.long(), True)),
    ],
)
def test_a_count_is_an_int_and_no_bool(name, call):
    with pytest.raises(TypeError, match=f"{name}=(True|False), it must be an int"):
        call(minidl.zeros(2, 3))


def test_a_bool_beside_a_dimension_or_a_correction_is_not_unbiased():
    x = minidl.ones(2, 3)
    for call in (lambda: x.std(False, True), lambda: x.var(0, 0), lambda: x.var(False, correction=1)):
        with pytest.raises(TypeError):
            call()


def test_the_sigmoid_of_integers_is_float32_as_that_of_their_floats():
    for function in ops.sigmoid, ops.tanh:
        assert function(minidl.tensor([1])).dtype == minidl.float32


def test_what_is_no_dtype_and_no_device_is_refused():
    for moved in minidl.ones(2), minidl.nn.Linear(2, 2):
        with pytest.raises(TypeError, match="3.0 is no dtype: use float32, float64, int64, bool"):
            moved.to(3.0)
        with pytest.raises(ValueError, match="unknown device 'gpu': there are cpu, meta and cuda"):
            moved.to("gpu")


def convolved(**options):
    return ops.conv2d(minidl.ones(2, 3, 5, 5), minidl.ones(4, 3, 3, 3), **options)


def transposed(**options):
    return ops.conv_transpose2d(minidl.ones(2, 3, 5, 5), minidl.ones(3, 4, 3, 3), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.linear(minidl.ones(2, 3), minidl.ones(4, 5)), r"shape \(2, 3\), its last size must be 5"),
        (lambda: ops.cross_entropy_sum(minidl.ones(2, 3), minidl.tensor([1])), r"need targets \(2,\), not \(1,\)"),
        (lambda: ops.pick(minidl.ones(2, 3), minidl.tensor([1, 3])), r"targets lie in \[1, 3\]"),
        (lambda: ops.binary_cross_entropy(minidl.tensor([1.5]), minidl.ones(1)), r"lie in \[1.5, 1.5\]"),
        (lambda: ops.layer_norm(minidl.ones(2, 3), 4), r"shape \(2, 3\), it must end with normalized_shape=\(4,\)"),
        (lambda: ops.layer_norm(minidl.ones(2, 3), (2, 3), minidl.ones(3)), r"a weight or bias has shape \(3,\)"),
        (lambda: ops.rms_norm(minidl.ones(2, 3), ()), "must end with normalized_shape"),
        (lambda: ops.group_norm(minidl.ones(2, 3), 2), "3 channels are not divisible by num_groups=2"),
        (lambda: ops.group_norm(minidl.ones(2), 1), r"of shape \(batch, channels, ...\), not \(2,\)"),
        (lambda: ops.batch_norm(minidl.ones(2, 3), None, None), "unless training"),
        (lambda: ops.batch_norm(minidl.ones(2, 3), minidl.ones(2), minidl.ones(3)), r"running_mean has shape \(2,\)"),
        (lambda: ops.batch_norm(minidl.ones(1, 3), None, None, training=True), "more than one element in a channel"),
        (lambda: ops.conv2d(minidl.ones(2, 3), minidl.ones(4, 3, 3, 3)), "needs images"),
        (lambda: ops.conv2d(minidl.ones(2, 1, 5, 5), minidl.ones(4, 3, 3, 3)), "1 channels"),
        (lambda: ops.conv2d(minidl.ones(2, 3, 2, 5), minidl.ones(4, 3, 3, 3)), "smaller than the kernel"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 2, 5), (1, 2, 3)), "an int or two"),
        (lambda: convolved(stride=0), "stride=0, it must be an int or two of at least 1"),
        (lambda: convolved(padding=(0, -1)), r"padding=\(0, -1\), it must be"),
        (lambda: convolved(padding="full"), r"""padding='full', it must be of ints, "same" or "valid\""""),
        (lambda: convolved(padding="same", stride=2), 'padding="same" needs stride 1'),
        (lambda: convolved(stride=(1, 2, 3)), r"stride=\(1, 2, 3\), it must be an int or two"),
        (lambda: convolved(dilation=0), "dilation=0, it must be an int or two of at least 1"),
        (lambda: convolved(dilation=3), r"smaller than the kernel \(3, 3\) with dilation \(3, 3\)"),
        (lambda: convolved(groups=2), "with groups=2 is for 6"),
        (lambda: convolved(groups=0), "groups=0, it must be an int of at least 1"),
        (lambda: ops.conv2d(minidl.ones(2, 4, 5, 5), minidl.ones(5, 2, 3, 3), groups=2), "not divisible by groups=2"),
        (lambda: ops.conv2d(minidl.ones(2, 3, 5, 5), minidl.ones(4, 3, 3)), "needs a weight of 4 dimensions"),
        (lambda: convolved(bias=minidl.ones(3)), r"the bias has shape \(3,\), it must be \(4,\)"),
        (lambda: ops.conv1d(minidl.ones(2), minidl.ones(4, 3, 3)), "needs sequences"),
        (lambda: ops.conv1d(minidl.ones(2, 3, 5), minidl.ones(4, 3, 3), stride=(1, 2)), "it must be an int"),
        (lambda: transposed(output_padding=1), "smaller than the stride"),
        (lambda: transposed(output_padding=(1, 2), dilation=2), r"smaller than the stride \(1, 1\) or the dilation"),
        (lambda: transposed(stride=True), "stride=True, it must be an int or two"),
        (lambda: minidl.ones(()).index_select(0, minidl.tensor([0, 0])), "2 indices, a tensor without dimensions has"),
        (lambda: transposed(padding=4), r"would give results of size \(-1, -1\)"),
        (lambda: transposed(padding="same"), "padding='same', it must be an int or two of at least 0$"),
        (lambda: transposed(groups=2), "divisible by groups=2"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 2, 0), "stride=0, it must be an int or two of at least 1"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 0), "kernel_size=0, it must be"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 2, padding=2), "padding=2, at most half of the window of 2"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 2, 5), 3), "smaller than a window"),
        (lambda: ops.max_pool1d(minidl.ones(5), 2), r"sequences \(\[batch\], channels, length\), not shape \(5,\)"),
        (lambda: ops.avg_pool2d(minidl.ones(2, 3, 0, 5), 2), "in each dimension of its windows, not shape"),
        (lambda: ops.avg_pool1d(minidl.ones(2, 3, 5), (2, 2)), r"kernel_size=\(2, 2\), it must be an int of"),
        (lambda: ops.adaptive_avg_pool2d(minidl.ones(3, 5, 5), (2, 2, 2)), "it must be an int or two"),
        (lambda: ops.adaptive_max_pool2d(minidl.ones(3, 5, 5), 0), r"output_size=\(0, 0\), it must be an int or two"),
        (lambda: ops.packed_attention(minidl.ones(2, 3, 2, 5)), "packed_attention needs"),
        (
            lambda: ops.swiglu(minidl.ones(2, 3)),
            r"swiglu halves the last dimension, that of shape \(2, 3\) is not even",
        ),
        (lambda: ops.dropout(minidl.ones(2), 1.0), "p=1.0"),
        (lambda: ops.gelu(minidl.ones(2), "fast"), "approximate='fast'"),
        (lambda: ops.cat([minidl.ones(2, 3), minidl.ones(3, 2)]), "the other sizes"),
        (lambda: ops.split(minidl.ones(4), [1, 2]), "do not add up to 4"),
        (lambda: ops.split(minidl.ones(4), 0), "split_size=0"),
        (lambda: ops.split(minidl.ones(4), [-1, 5]), "must not be negative"),
        (lambda: minidl.ones(4).expand(3), "cannot be repeated"),
        (lambda: minidl.ones(4, 2).permute(0, 0), "not an order"),
        (lambda: minidl.ones(4, 2).movedim((0, 1), 0), "each needs as many dimensions"),
        (lambda: minidl.ones(4, 2).sum((0, -2)), "named twice in dim="),
        (lambda: minidl.ones(4).clamp(), "clamp needs min, max or both"),
        (lambda: minidl.ones(4).masked_fill(minidl.ones(4) > 0, minidl.ones(4)), "needs one value"),
        (lambda: minidl.tensor([2]) ** -1, "negative integer powers"),
        (lambda: minidl.ones(4).norm(-1), "norm: p=-1"),
        (lambda: minidl.ones(4).topk(5), "k=5 of the 4 elements"),
        (lambda: minidl.ones(4)[::-1], "a slice with step -1"),
        (lambda: minidl.ones(4, device="meta")[minidl.zeros(4, dtype="bool", device="meta")], "a bool tensor on meta"),
        (lambda: minidl.ones(4, 2).gather(0, minidl.tensor([[0, 0, 0]])), "does not fit a tensor of"),
        (lambda: minidl.ones(4).scatter(0, minidl.tensor([0, 1]), minidl.ones(1)), "too small for an index"),
        (lambda: minidl.ones(4).index_select(0, minidl.tensor([[0]])), "needs a vector of int64"),
        (lambda: minidl.stack([minidl.ones(2), minidl.ones(3)]), "tensors of one shape"),
        (lambda: minidl.cat([]), "at least one tensor"),
        (lambda: minidl.ones(4).narrow(0, 2, 3), "3 from 2 do not lie in dim 0"),
        (lambda: minidl.ones(4).chunk(0), "chunks=0"),
        (lambda: minidl.ones(4, 2).repeat(2), "a number of at least 0 for each dimension"),
        (lambda: minidl.ones(4).repeat_interleave(minidl.tensor([1, 2])), "for each of 4 slices"),
        (lambda: ops.pad(minidl.ones(4), (1,)), "must be pairs"),
        (lambda: ops.pad(minidl.ones(4), (1, 1), "mirror"), "mode='mirror'"),
        (lambda: ops.pad(minidl.ones(4), (4, 0), "reflect"), "does not fit dim 0"),
        (lambda: ops.pad(minidl.ones(4), (-2, -3)), "crops more than there is"),
        (lambda: minidl.ones(4, 2).flip(0, -2), "a dimension is named twice"),
        (lambda: minidl.ones(4, 2).roll((1, 2)), "no dims, it must be 1"),
        (lambda: minidl.ones(4).tril(), "needs matrices"),
        (lambda: minidl.diag(minidl.ones(1, 1, 1)), "a vector or a matrix"),
        (lambda: minidl.bmm(minidl.ones(2, 3, 4), minidl.ones(2, 3, 4)), "bmm needs"),
        (lambda: minidl.dot(minidl.ones(2), minidl.ones(3)), "two vectors of one size"),
        (lambda: minidl.outer(minidl.ones(2), minidl.ones(3, 1)), "outer needs two vectors"),
        (lambda: minidl.einsum("ij,jk->ik", minidl.ones(2, 2)), "is for 2 operands, not 1"),
        (lambda: minidl.einsum("ij,jk->ik", minidl.ones(2, 2), minidl.ones(3, 2)), "sizes 2 and 3 of the label 'j'"),
        (lambda: minidl.einsum("i->i", minidl.ones(2, 2)), "'i' names 1 dimensions of"),
        (lambda: minidl.einsum("i->j", minidl.ones(2)), "must be one of an operand's"),
        (lambda: minidl.einsum("i+->i", minidl.ones(2, 2)), "must be letters"),
        (lambda: minidl.einsum("ii", minidl.ones(2, 3)), "of the label 'i' have sizes 2, 3"),
    ],
)
def test_wrong_shapes_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minidl.tensor([True]) - minidl.tensor([True]), "subtract of two bools"),
        (lambda: -minidl.tensor([True]), "negative of bools"),
        (lambda: minidl.tensor([True]) // minidl.tensor([True]), "floor_divide needs numbers"),
        (lambda: minidl.ones(2) & minidl.ones(2), "bitwise_and needs bools or integers"),
        (lambda: ~minidl.ones(2), "bitwise_not needs bools or integers"),
        (lambda: minidl.where(minidl.ones(2), 1.0, 0.0), "needs a bool tensor as condition"),
        (lambda: minidl.ones(2) + "1", "add of a tensor and a str"),
        (lambda: minidl.ones(2) * 1j, "multiply of a tensor and a complex"),
        (lambda: minidl.tensor([1]).mean(), "mean needs floats"),
        (lambda: minidl.tensor([1]).var(), "var needs floats"),
        (lambda: minidl.ones(2).gather(0, minidl.ones(2)), "must be of dtype int64"),
        (lambda: minidl.ones(2).masked_select(minidl.ones(2)), "needs a mask of bools"),
        (lambda: ops.one_hot(minidl.ones(2)), "class indices of dtype int64"),
        (lambda: minidl.einsum("i,i", minidl.ones(2), minidl.ones(2, dtype="float64")), "operands of one dtype"),
        (lambda: range(3)[minidl.ones(())], "only a tensor of integers can be an index"),
        (lambda: iter(minidl.ones(())), "iteration over a tensor without dimensions"),
    ],
)
def test_wrong_kinds_of_values_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_indices_out_of_range_are_refused():
    x, index = minidl.ones(3), minidl.tensor([0, 3])
    for call in (
        lambda: x["0"],
        lambda: x[1.0],
        lambda: x[(0, None),],
        lambda: x[([0, 1], [0])],
        lambda: minidl.ones(3, 3)[:, ([0, 1], [0])],
        lambda: x[minidl.ones(2)],
        lambda: x[index],
        lambda: x[3],
        lambda: x.gather(0, index),
        lambda: x.gather(0, minidl.tensor([-1])),
        lambda: x.index_select(0, index),
        lambda: x.scatter_add(0, index, minidl.ones(2)),
        lambda: ops.one_hot(index, 3),
    ):
        with pytest.raises(IndexError):
            call()


def test_an_integer_divided_by_0_is_refused():
    for call in (lambda: minidl.tensor([1]) // 0, lambda: minidl.tensor([1]) % minidl.tensor([0])):
        with pytest.raises(ZeroDivisionError, match="an integer is divided by 0"):
            call()


def test_inputs_on_several_devices_are_refused():
    a, b = minidl.ones(2), minidl.ones(2, device="meta")
    for call in (lambda: a < b, lambda: a // b, lambda: minidl.einsum("i,i", a, b), lambda: a[b.long()]):
        with pytest.raises(ValueError, match="meta"):
            call()
