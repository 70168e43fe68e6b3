"""Every method of training in parallel: what it is, when it pays, and an example of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from minidl import data, models
from minidl.data import Dataset
from minidl.nn import Sequential
from minidl.parallel import Mesh, Plan
from minidl.parallel.chain_profile import build_on_meta, loss_of
from simulator.experiments import Experiment

STEPS = 40  # of each run, at most
SIZES, WIDTHS = (64, 512, 512, 512, 512, 512, 16), (16, 32, 64)  # of the perceptron and the convolutional network
SEQUENCE = 128  # tokens of a sample of the transformers


@dataclass(frozen=True)
class Method:
    """A way of training in parallel, and an example of it.

    model: what it is shown on. what: it is, and pays: when, a phrase each. source: the paper. build: of the model, with
    a mesh. data: that it is trained on. samples: of a global batch, for each worker. plan: that for so many workers.
    """

    name: str
    model: str
    what: str
    source: str
    pays: str
    build: Callable[[Mesh | None], Sequential]
    data: Callable[[], Dataset]
    samples: int
    plan: Callable[[int], Plan]

    def experiment(self, workers: int) -> Experiment:
        """The training under its plan, for a comparison. ValueError where the model cannot be spread over so many."""
        loss, batch_size = loss_of(build_on_meta(self.build, Plan().mesh())), self.samples * workers
        made = Experiment(self.name, self.build, (self.plan(workers),), STEPS, batch_size, self.data(), loss)
        made.check(made.plans[0])
        return made


@cache
def _points() -> Dataset:
    return data.synthetic(1 << 13, SIZES[:1], SIZES[-1])


@cache
def _images() -> Dataset:
    return data.synthetic_images("cifar10", train=1 << 10)[0]


@cache
def _text() -> Dataset:
    return data.TextDataset(np.frombuffer(data.coriolanus().encode("ascii"), np.uint8), SEQUENCE, stride=32)


def _over(axis: str, **settings) -> Callable[[int], Plan]:
    return lambda workers: Plan(**{axis: workers}, **settings)


def _stages(schedule: str, **settings) -> Callable[[int], Plan]:
    return lambda workers: Plan(pipeline=workers, micro_batches=2 * workers, schedule=schedule, **settings)


def _perceptron(name: str, what: str, source: str, pays: str, plan=None, split: str = "column-row") -> Method:
    build, plan = (lambda mesh: models.mlp(SIZES, mesh, split)), plan or _over("tensor")
    return Method(name, "perceptron", what, source, pays, build, _points, 128, plan)


def _convolutions(split: str, what: str, source: str, pays: str) -> Method:
    build = lambda mesh: models.cnn(3, 32, 10, WIDTHS, mesh, split)  # noqa: E731
    return Method(f"images: {split}", "convolutions", what, source, pays, build, _images, 16, _over("tensor"))


def _transformer(name: str, what: str, source: str, pays: str, plan: Callable[[int], Plan]) -> Method:
    build = lambda mesh: models.gpt(8, 128, 8, 256, SEQUENCE, mesh)  # noqa: E731
    return Method(name, "transformer", what, source, pays, build, _text, 4, plan)


METHODS = (
    _perceptron(
        "data", "each worker has the whole model and its share of each batch; gradients are summed", "Li et al. 2020",
        "the model fits into a worker, and batches are large beside it", _over("data"),
    ),
    _transformer(
        "sharded optimizer", "data, but each worker updates, and has the optimizer's state of, its share of the "
        "parameters", "Rajbhandari et al. 2020, ZeRO stage 1", "optimizer state fills the memory; it sends no more",
        _over("data", sharding="optimizer", bucket_mb=0.5),
    ),
    _transformer(
        "sharded gradients", "sharded optimizer, and gradients are reduced after every micro-batch, to shares too",
        "Rajbhandari et al. 2020, ZeRO stage 2", "gradients fill the memory; with one micro-batch it sends no more",
        _over("data", sharding="gradients", bucket_mb=0.5),
    ),
    _transformer(
        "sharded parameters", "sharded gradients, and parameters are gathered by bucket where used, then dropped",
        "Rajbhandari et al. 2020, ZeRO stage 3; Zhao et al. 2023, FSDP",
        "the model does not fit into a worker; a half more is sent",
        _over("data", sharding="parameters", bucket_mb=0.5),
    ),
    _transformer(
        "naive pipeline", "each worker has a stage of the model; one micro-batch at a time goes forward and back",
        "Huang et al. 2019, figure 2b", "the model alone does not fit: all workers but one are idle", _stages("naive"),
    ),
    _transformer(
        "gpipe", "all micro-batches go forward through the stages, then all go back", "Huang et al. 2019",
        "links are slow, and the activations of all micro-batches fit", _stages("gpipe"),
    ),
    _transformer(
        "1f1b", "each stage takes a forward and a backward in turn", "Narayanan et al. 2019",
        "the activations of all micro-batches do not fit: a stage holds at most as many as stages", _stages("1f1b"),
    ),
    _transformer(
        "interleaved", "1f1b, with two chunks of the model on each worker", "Narayanan et al. 2021",
        "micro-batches are few, so stages would idle, and links are fast: up to three times as much is sent",
        _stages("interleaved", chunks=2),
    ),
    _transformer(
        "zero bubble", "1f1b, where gradients of parameters are found when a stage would idle", "Qi et al. 2023",
        "micro-batches are few and links slow: it sends no more than 1f1b", _stages("zero-bubble"),
    ),
    _perceptron(
        "columns, then rows", "of two layers the first is split by outputs, the second by inputs; one sum for both",
        "Shoeybi et al. 2019", "layers are too large for a worker, and links as fast as inside a node",
    ),
    _perceptron(
        "product: rows", "each worker has its rows of the samples in every product; gradients are summed",
        "Krizhevsky 2014", "there are more rows than weights", split="rows",
    ),
    _perceptron(
        "product: columns", "each worker finds its columns of every product, which are gathered", "Krizhevsky 2014",
        "there are more weights than rows", split="columns",
    ),
    _perceptron(
        "product: inner", "each worker has its part of the inner dimension; whole results are summed",
        "Shoeybi et al. 2019", "inputs come split, as from a layer split by columns", split="inner",
    ),
    _perceptron(
        "product: summa", "each worker has a block of every matrix; panels are broadcast along rows and columns",
        "van de Geijn and Watts 1997, SUMMA", "workers are many: the more there are, the less each sends",
        split="summa",
    ),
    _convolutions(
        "batch", "in convolutions each worker has some of the samples", "Krizhevsky 2014",
        "images are small and samples many",
    ),
    _convolutions(
        "output", "each worker has some output channels of a convolution, which are gathered",
        "Dryden et al. 2019, SC'19",
        "channels are many and images small, as in late layers",
    ),
    _convolutions(
        "input", "each worker has some input channels of a convolution, whose results are summed",
        "Dryden et al. 2019, SC'19",
        "channels are many, and come split",
    ),
    _convolutions(
        "space", "each worker has some rows of every image, and gets from others those at the border",
        "Dryden et al. 2019, IPDPS", "images are too large for a worker: only rows at borders are sent",
    ),
    _transformer(
        "transformer layers", "heads, inner features and vocabulary are split", "Shoeybi et al. 2019",
        "layers are too large for a worker, and links as fast as inside a node", _over("tensor"),
    ),
    _transformer(
        "sequence parallel", "that, and between split layers each worker has a slice of every sequence",
        "Korthikanti et al. 2022", "activations fill the memory; a little more is sent",
        _over("tensor", sequence_parallel=True),
    ),
    _transformer(
        "ring attention", "each worker has a part of every sequence; keys and values go round a ring",
        "Liu et al. 2023", "sequences are so long that the activations of one do not fit", _over("context"),
    ),
    Method(
        "experts", "mixtures of experts",
        "each worker has some experts of each mixture; tokens go to theirs and come back",
        "Lepikhin et al. 2020", "parameters are to be many and the work on a token little",
        lambda mesh: models.moe_gpt(4, 128, 8, 256, SEQUENCE, 8, mesh), _text, 4, _over("expert"),
    ),
    _transformer(
        "selective recompute", "data; the weights of attention are not kept, but found again in backward",
        "Korthikanti et al. 2022", "activations fill the memory: attention is little work to save much",
        _over("data", recompute="selective"),
    ),
    _transformer(
        "full recompute", "data; only the inputs of buckets of blocks are kept, the rest is found again",
        "Chen et al. 2016", "activations fill the memory, and a third more work is worth it",
        _over("data", recompute="full"),
    ),
)  # fmt: skip
