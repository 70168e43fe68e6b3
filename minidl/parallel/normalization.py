"""Batch norm over the replicas: the statistics are those of their micro-batches together."""

from minidl.nn.normalization import BatchNorm
from minidl.ops.batch_norm import BatchNorm as BatchNormOp
from minidl.ops.batch_norm import batch_norm_by, elements_per_channel
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor


class GatheredBatchNorm(BatchNormOp):
    """Batch norm by the statistics of all ranks of `group`."""

    once_differentiable = CollectiveOp.once_differentiable

    def __init__(self, eps: float, group: ProcessGroup):
        super().__init__(eps)
        self.group = group

    def find_statistics(self):
        k, x, c = self.kernels, self.x, self.x.shape[1]
        mean, variance = k.channel_moments(x)
        count = k.full((1,), elements_per_channel(x), x.dtype)
        found = self.group.all_gather(k.reshape(k.concatenate([count, mean, variance], 0), (1, 1 + 2 * c)))
        parts = slice(1), slice(1, 1 + c), slice(1 + c, 1 + 2 * c)
        counts, means, variances = (k.index(found, (slice(None), part)) for part in parts)  # (ranks, 1), (ranks, c)
        n = k.sum(counts, None, False)
        self.count, self.present = k.maximum(n, 1), k.minimum(n, 1)
        self.bessel = k.divide(n, k.maximum(k.subtract(n, 1), 1))
        share = k.divide(counts, self.count)
        self.mean = k.sum(k.multiply(means, share), 0, False)
        apart = k.subtract(means, self.mean)
        self.variance = k.sum(k.multiply(k.add(variances, k.multiply(apart, apart)), share), 0, False)

    def over_whole_batch(self, total, along):
        k, c = self.kernels, self.x.shape[1]
        both = self.group.all_reduce(k.concatenate([total, along], 0))
        return k.index(both, (slice(c),)), k.index(both, (slice(c, 2 * c),))


class SyncBatchNorm(BatchNorm):
    """Batch norm of images, sequences or rows by the statistics of the same micro-batch of all replicas.

    group: mesh.group("data", "context"), the ranks that hold the parts of a batch, with "expert" where experts are
    shared; None or a group of one rank makes it a plain batch norm. With one micro-batch a step, training does not
    depend on how many replicas there are.
    """

    dims = "(batch, channels)", "(batch, channels, length)", "(batch, channels, height, width)"

    def __init__(
        self,
        num_features: int,
        group: ProcessGroup | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        if group is not None and group.axes == ("data",):
            raise ValueError(
                'SyncBatchNorm needs mesh.group("data", "context"), all ranks that hold a part of the batch, '
                'not mesh.group("data")'
            )
        self.group = group if group is not None and group.size > 1 else None

    def by_batch(self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum) -> Tensor:
        if self.group is None:
            return super().by_batch(x, running_mean, running_var, momentum)
        op = GatheredBatchNorm(self.eps, self.group)
        return batch_norm_by(op, x, running_mean, running_var, self.weight, self.bias, momentum)
