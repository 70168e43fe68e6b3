"""What tests of MPI run under mpiexec: `python on_ranks.py NAME [PATH]` calls the function NAME, on every rank."""

import os
import pickle
import signal
import sys
from functools import partial

import numpy as np

from minidl import data, models, nn, optim
from minidl.models.moe_gpt import MoELoss
from minidl.parallel import Plan, launch, train
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear
from minidl.ranks import leads

RANKS = 4
PLANS = {
    "data": Plan(data=4, bucket_mb=0.001),
    "sharded": Plan(data=4, sharding="optimizer", bucket_mb=0.001),
    "sharded gradients": Plan(data=2, pipeline=2, micro_batches=2, sharding="gradients", bucket_mb=0.001),
    "sharded parameters": Plan(data=4, micro_batches=2, sharding="parameters", bucket_mb=0.001),
    "pipeline": Plan(pipeline=4, micro_batches=4, schedule="1f1b"),
    "tensor": Plan(tensor=4),
    "data x pipeline": Plan(data=2, pipeline=2, micro_batches=4),
    "tensor x sharded": Plan(data=2, tensor=2, sharding="optimizer"),
    "interleaved": Plan(pipeline=4, chunks=2, micro_batches=4, schedule="interleaved", recompute="full"),
    "zero-bubble": Plan(data=2, pipeline=2, micro_batches=4, schedule="zero-bubble", bucket_mb=0.001),
}


def build(mesh):
    """Eight blocks, two of which hold the same parameters."""
    group, tied = mesh.group("tensor"), nn.Linear(24, 24)
    return nn.Sequential(
        nn.Flatten(),
        ColumnParallelLinear(64, 32, group),
        nn.ReLU(),
        RowParallelLinear(32, 24, group),
        tied,
        nn.Dropout(0.2),
        tied,
        nn.Linear(24, 10),
    )


BATCH, REST = 64, 29  # the batches of an epoch
DIGITS = data.ArrayDataset(*data.digits()[0][np.arange(BATCH + REST)])


def trained(plan, steps=4, **options):
    return train(
        build, DIGITS, plan, optimizer=lambda p: optim.SGD(p, lr=0.3, momentum=0.9), loss=nn.CrossEntropyLoss(),
        batch_size=BATCH, steps=steps, dtype="float64", evaluate=DIGITS, evaluate_every=3, clip_norm=1.0, **options,
    )  # fmt: skip


def gpt(mesh):
    return models.gpt(layers=2, hidden=16, heads=4, vocabulary=12, sequence=8, mesh=mesh, dropout=0.1)


def mixture(mesh):
    return models.moe_gpt(layers=2, hidden=16, heads=4, vocabulary=12, sequence=8, experts=4, mesh=mesh, dropout=0.1)


def images(mesh):
    return models.cnn(1, 8, widths=(4, 6, 8), mesh=mesh, split="space")


def blocks(mesh):
    return models.mlp((64, 32, 16, 16), mesh, split="summa")


SHARED = {  # what ranks share inside layers
    "sequences": (gpt, Plan(tensor=2, context=2, sequence_parallel=True)),
    "experts": (mixture, Plan(tensor=2, expert=2, sequence_parallel=True, sharding="optimizer")),
    "ring": (gpt, Plan(context=4)),
    "images": (images, Plan(data=2, tensor=2)),
    "blocks": (blocks, Plan(tensor=4)),
}


def sharing(build, plan):
    """A training in which layers communicate."""
    dataset, loss = data.digits()[0], nn.CrossEntropyLoss()
    if build in (gpt, mixture):
        text = np.random.default_rng(0).integers(0, 12, (32, 9))
        dataset = data.ArrayDataset(text[:, :-1], text[:, 1:])
        loss = MoELoss() if build is mixture else loss
    return train(
        build, dataset, plan, optimizer=lambda p: optim.SGD(p, lr=0.3, momentum=0.9), loss=loss, batch_size=8, steps=3,
        dtype="float64", drop_last=True, progress=False,
    )  # fmt: skip


def shared(path):
    """Train with layers that ranks share; the first rank leaves what it found in the file."""
    found = {name: numbers(sharing(build, plan)) for name, (build, plan) in SHARED.items()}
    if leads():
        with open(path, "wb") as file:
            file.write(pickle.dumps(found))


def numbers(run):
    """What a run of any plan has alike."""
    return run.losses, [(e.step, e.loss, e.accuracy) for e in run.evaluations], run.state_dict()


def contract(path):
    """Every method of a group against NumPy: the functions that the shared-memory group is tested with.

    Without lengths that are of interest in shared memory alone; MPI sees to it by itself that no call meets another.
    """
    from tests.parallel import drawn_calls
    from tests.parallel import test_group as on_shared_memory

    launch(on_shared_memory.every_collective, RANKS, kwargs={"lengths": (0, 7, 70_001)})
    launch(on_shared_memory.asynchronous, RANKS, kwargs={"in_a_row": 100})
    for work in ("textbook", "messages", "interleaved_groups", "different_splits"):
        launch(getattr(on_shared_memory, work), RANKS)
    for called in drawn_calls.some(RANKS, lists=10):
        launch(drawn_calls.make, RANKS, (called,))
    floats = launch(on_shared_memory.float_results, RANKS)
    first, *others = floats
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a == b if isinstance(a, bytes) else np.array_equal(a, b)
    others = launch(unusual, RANKS)
    assert others == [("done", rank) for rank in range(RANKS)]
    if leads():
        with open(path, "w") as file:
            file.write("all as it should be")


def unusual(group):
    """What MPI cannot reduce itself, and disagreement."""
    size, rank = group.size, group.rank
    for dtype in ("bool", "float16", "complex64"):
        parts = [(np.arange(size * 2) % (r + 2) == 0).astype(dtype) for r in range(size)]
        total = sum(parts[1:], parts[0])
        assert np.array_equal(group.all_reduce(parts[rank].copy()), total)
        assert np.array_equal(group.reduce_scatter(parts[rank]), np.split(total, size)[rank])
        assert np.array_equal(group.reduce(parts[rank].copy(), 1), total if rank == 1 else parts[rank])
    try:
        group.all_reduce(np.zeros(3 + (rank == 2)))
    except RuntimeError as error:
        text = str(error)
        assert "disagree" in text and "(3,)" in text and "(4,)" in text and f"rank {rank} calls" in text
        return "done", rank


def plans(path):
    """The numbers of every plan, as every rank has them; a file to go on from, and the run that goes on."""
    found = {name: numbers(trained(plan)) for name, plan in PLANS.items()}
    told = []
    stopped = trained(
        PLANS["data x pipeline"], 2, save=f"{path}.safetensors", save_every=1, callbacks=[told.append], progress=False
    )
    assert stopped.saved_step == 2 and len(told) == (2 if leads() else 0) and len(stopped.trace.events) > 0
    found["gone on"] = numbers(trained(PLANS["data x pipeline"], resume=f"{path}.safetensors"))
    everywhere = launch(lambda group: pickle.dumps(found), RANKS)
    assert len(set(everywhere)) == 1
    if leads():
        with open(path, "wb") as file:
            file.write(everywhere[0])


def object_to(record):
    if record.step == 3:
        raise ArithmeticError("enough")


def stopped(path):
    """A callback that raises has all ranks stop before the same step."""
    try:
        trained(PLANS["data"], 1_000_000, save=f"{path}.safetensors", callbacks=[object_to])
    except (ArithmeticError, KeyboardInterrupt) as error:
        assert isinstance(error, ArithmeticError if leads() else KeyboardInterrupt)
        run = error.run
        seen = launch(lambda group: (len(run.losses), run.saved_step), RANKS)
        assert len(set(seen)) == 1 and seen[0][0] == seen[0][1] >= 4
        if leads():
            with open(path, "w") as file:
                file.write(type(error).__name__)


def fail(group, how):
    for step in range(50):
        group.begins(step)
        group.all_reduce(np.ones(3))
    if group.rank == 2:
        if how == "raises":
            raise ArithmeticError("what rank 2 has to say")
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()


def raises(path):
    launch(partial(fail, how="raises"), RANKS)


def killed(path):
    launch(partial(fail, how="killed"), RANKS)


def raises_later(path):
    launch(lambda group: group.barrier(), RANKS)
    if leads():
        raise ArithmeticError("outside of launch")
    launch(lambda group: group.barrier(), RANKS)


def too_many(path):
    launch(lambda group: group.barrier(), RANKS)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)
