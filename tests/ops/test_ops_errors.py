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
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 2, 5), (1, 2, 3)), "one int or two"),
        (lambda: ops.conv2d(minidl.ones(2, 3, 5, 5), minidl.ones(4, 3, 3, 3), stride=0), r"stride \(0, 0\)"),
        (lambda: ops.conv2d(minidl.ones(2, 3, 5, 5), minidl.ones(4, 3, 3, 3), padding=(0, -1)), r"padding \(0, -1\)"),
        (lambda: convolved(padding="full"), r"""padding='full', it must be an int or two, "same" or "valid\""""),
        (lambda: convolved(padding="same", stride=2), 'padding="same" needs stride 1'),
        (lambda: convolved(stride=(1, 2, 3)), r"stride=\(1, 2, 3\), it must be an int or two"),
        (lambda: convolved(dilation=0), r"dilation \(0, 0\), each must be at least 1"),
        (lambda: convolved(dilation=3), r"smaller than the kernel \(3, 3\) with dilation \(3, 3\)"),
        (lambda: convolved(groups=2), "with groups=2 is for 6"),
        (lambda: convolved(groups=0), "groups=0, it must be an int of at least 1"),
        (lambda: ops.conv2d(minidl.ones(2, 4, 5, 5), minidl.ones(5, 2, 3, 3), groups=2), "not divisible by groups=2"),
        (lambda: ops.conv2d(minidl.ones(2, 3, 5, 5), minidl.ones(4, 3, 3)), "needs a weight of 4 dimensions"),
        (lambda: convolved(bias=minidl.ones(3)), r"the bias has shape \(3,\), it must be \(4,\)"),
        (lambda: ops.conv1d(minidl.ones(2), minidl.ones(4, 3, 3)), "needs lines"),
        (lambda: ops.conv1d(minidl.ones(2, 3, 5), minidl.ones(4, 3, 3), stride=(1, 2)), "it must be an int"),
        (lambda: transposed(output_padding=1), "smaller than the stride"),
        (lambda: transposed(padding=4), r"would give results of size \(-1, -1\)"),
        (lambda: transposed(padding="same"), "padding='same', it must be an int or two$"),
        (lambda: transposed(groups=2), "divisible by groups=2"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 2, 0), "stride=0, it must be of ints of at least 1"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 0), "kernel_size=0, it must be"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 5, 5), 2, padding=2), "padding=2, at most half of the window of 2"),
        (lambda: ops.max_pool2d(minidl.ones(2, 3, 2, 5), 3), "is smaller than a window"),
        (lambda: ops.max_pool1d(minidl.ones(5), 2), r"of shape \(\[batch\], channels, length\), not \(5,\)"),
        (lambda: ops.avg_pool2d(minidl.ones(2, 3, 0, 5), 2), r"\(\[batch\], channels, height, width\), not"),
        (lambda: ops.avg_pool1d(minidl.ones(2, 3, 5), (2, 2)), r"kernel_size=\(2, 2\), it must be one int"),
        (lambda: ops.adaptive_avg_pool2d(minidl.ones(3, 5, 5), (2, 2, 2)), "it must be one int or two"),
        (lambda: ops.adaptive_max_pool2d(minidl.ones(3, 5, 5), 0), r"output_size=\(0, 0\), it must be of ints"),
        (lambda: ops.packed_attention(minidl.ones(2, 3, 2, 5)), "packed_attention needs"),
        (lambda: ops.dropout(minidl.ones(2), 1.0), "p=1.0"),
        (lambda: ops.gelu(minidl.ones(2), "fast"), "approximate='fast'"),
        (lambda: ops.cat([minidl.ones(2, 3), minidl.ones(3, 2)]), "the other sizes"),
        (lambda: ops.split(minidl.ones(4), [1, 2]), "do not add up to 4"),
        (lambda: ops.split(minidl.ones(4), 0), "split_size=0"),
        (lambda: ops.split(minidl.ones(4), [-1, 5]), "must not be negative"),
        (lambda: minidl.ones(4).expand(3), "cannot be repeated"),
        (lambda: minidl.ones(4, 2).permute(0, 0), "not an order"),
    ],
)
def test_wrong_shapes_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
