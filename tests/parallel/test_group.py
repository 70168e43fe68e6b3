"""ProcessGroup on shared memory: every method against NumPy, on 1 to 4 ranks. Many cases share one launch."""

import numpy as np
import pytest

import minidl
from minidl.parallel import WorkerError, collectives, launch

pytestmark = pytest.mark.usefixtures("warm_workers")

RANKS = (1, 2, 3, 4)
LENGTHS = (0, 1, 7, 64, 1000, 70_001)  # none, less than a cache line, more than a block
DTYPES = ("float32", "float64", "int64")
UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def values(rank, shape, dtype):
    return np.random.default_rng([rank, np.prod(shape, dtype=int)]).integers(-99, 99, shape).astype(dtype)


def reduced(op, parts):
    total = parts[0].copy()
    for part in parts[1:]:
        UFUNCS[op](total, part, out=total)
    return total


def kinds(group, x):
    """The same values as an array, a Tensor, a Tensor in the arena, and an array that is not contiguous."""
    yield x.copy()
    yield minidl.tensor(x)
    shared = group.empty(x.shape, x.dtype)
    shared.data[...] = x
    yield shared
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    yield wide[..., 0]


def array(x):
    return x.data if isinstance(x, minidl.Tensor) else x


def contiguous(tensors):
    return [x for x in tensors if array(x).flags.c_contiguous]


def every_collective(group, lengths=LENGTHS):
    size, rank = group.size, group.rank
    same = np.testing.assert_array_equal
    for dtype in DTYPES:
        for length in lengths:
            parts = [values(r, (length,), dtype) for r in range(size)]
            for op in UFUNCS:
                for x in kinds(group, parts[rank]):
                    assert group.all_reduce(x, op) is x
                    same(array(x), reduced(op, parts))
            for root in range(size):
                for x in kinds(group, parts[rank]):
                    assert group.broadcast(x, root) is x
                    same(array(x), parts[root])
            for x in kinds(group, parts[rank]):
                root = length % size
                assert group.reduce(x, root, "max") is x
                same(array(x), reduced("max", parts) if rank == root else parts[rank])
            for x in kinds(group, parts[rank]):
                gathered = group.all_gather(x)
                assert type(gathered) is type(x)
                same(array(gathered), np.concatenate(parts))
                same(array(x), parts[rank])
            for out in contiguous(kinds(group, np.zeros(size * length, dtype))):
                place = array(out)[rank * length : (rank + 1) * length]
                place[...] = parts[rank]
                assert group.all_gather(place, out=out) is out  # in place
                same(array(out), np.concatenate(parts))
        for rows in (0, 1, 3):
            shape = (rows * size, 5)
            parts = [values(r, shape, dtype) for r in range(size)]
            cut = [np.split(part, size) for part in parts]
            for op in UFUNCS:
                for x in kinds(group, parts[rank]):
                    mine = group.reduce_scatter(x, op)
                    assert type(mine) is type(x)
                    same(array(mine), np.split(reduced(op, parts), size)[rank])
                    same(array(x), parts[rank])
                for x in contiguous(kinds(group, parts[rank])):
                    place = array(x)[rank * rows : (rank + 1) * rows]
                    assert group.reduce_scatter(array(x), op, out=place) is place  # in place
                    same(place, np.split(reduced(op, parts), size)[rank])
            for x in kinds(group, parts[rank]):
                same(array(group.all_to_all(x)), np.concatenate([cut[r][rank] for r in range(size)]))
                same(array(x), parts[rank])
            for root in range(size):
                for x in kinds(group, parts[rank]):
                    joined = group.gather(x, root)
                    assert (joined is None) == (rank != root)
                    if rank == root:
                        same(array(joined), np.concatenate(parts))
                    same(array(group.scatter(x if rank == root else None, root)), cut[root][rank])
    return "done"


@pytest.mark.parametrize("ranks", RANKS)
def test_every_collective_gives_what_numpy_gives(ranks):
    assert launch(every_collective, ranks, timeout=60) == ["done"] * ranks


def blocking_after_pending(group):
    """A call that blocks comes after those that are under way, also where the ranks are not in step."""
    for i in range(50):
        if group.rank == i % 2:
            group.pause()
        pending = group.all_reduce(np.full(8, group.rank + i), async_op=True)
        assert (group.all_reduce(np.full(3, group.rank + 2 * i)) == 1 + 4 * i).all()
        assert (pending.wait() == 1 + 2 * i).all()


def test_a_blocking_collective_waits_its_turn():
    launch(blocking_after_pending, 2, timeout=60)


def float_results(group):
    results = []
    for length in (1, 100, 300_001):
        x = np.random.default_rng([group.rank, length]).standard_normal(length).astype(np.float32)
        results += [group.all_reduce(x.copy()).tobytes(), group.all_reduce(minidl.tensor(x)).numpy().tobytes()]
        results += [group.all_reduce(x.astype(t), "mean").tobytes() for t in (np.float16, np.float32)]
        results += [collectives.ring_all_reduce(group, x.copy()), collectives.flat_all_reduce(group, x.copy())]
    return results


@pytest.mark.parametrize("ranks", (2, 3, 4))
def test_an_all_reduce_gives_the_same_bits_on_every_rank_and_in_every_run(ranks):
    first, *others = launch(float_results, ranks) + launch(float_results, ranks)
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a == b if isinstance(a, bytes) else np.array_equal(a, b)
    shared, _, _, _, ring, flat = first[-6:]
    np.testing.assert_allclose(ring, np.frombuffer(shared, np.float32), atol=1e-5)
    np.testing.assert_array_equal(flat, np.frombuffer(shared, np.float32))  # both in rank order


def textbook(group):
    """The algorithms on send and recv, against the engine's own collectives."""
    n, rank = group.size, group.rank
    for length in (0, 5, 12 * n):
        x = values(rank, (length,), "float64")
        total = group.all_reduce(x.copy())
        for algorithm in (
            collectives.ring_all_reduce,
            collectives.tree_all_reduce,
            collectives.recursive_doubling_all_reduce,
            collectives.flat_all_reduce,
        ):
            np.testing.assert_array_equal(algorithm(group, x.copy()), total)
        for algorithm in (collectives.ring_broadcast, collectives.tree_broadcast):
            np.testing.assert_array_equal(algorithm(group, x.copy(), n - 1), group.broadcast(x.copy(), n - 1))
    x = values(rank, (3 * n,), "float64")
    np.testing.assert_array_equal(collectives.ring_reduce_scatter(group, x.copy()), group.reduce_scatter(x))
    np.testing.assert_array_equal(collectives.pairwise_all_to_all(group, x), group.all_to_all(x))
    sent, received = [(r + 2 * rank) % 3 for r in range(n)], [(rank + 2 * r) % 3 for r in range(n)]
    uneven = values(rank, (sum(sent), 2), "float64")
    np.testing.assert_array_equal(
        collectives.pairwise_all_to_all(group, uneven, received, sent), group.all_to_all(uneven, received, sent)
    )
    for scatter in (collectives.flat_scatter, collectives.tree_scatter):
        np.testing.assert_array_equal(scatter(group, x.copy(), n - 1), group.scatter(x, n - 1))
    whole = np.zeros(3 * n)
    whole[3 * rank : 3 * rank + 3] = x[:3]
    np.testing.assert_array_equal(collectives.ring_all_gather(group, whole), group.all_gather(x[:3]))
    collectives.dissemination_barrier(group)


@pytest.mark.parametrize("ranks", RANKS)
def test_the_textbook_algorithms_agree_with_the_shared_memory_collectives(ranks):
    launch(textbook, ranks, timeout=60)


def asynchronous(group, in_a_row=2000):
    size, rank = group.size, group.rank
    total = size * (size - 1) // 2
    # Many at once, waited for in the reverse order
    xs = [group.empty((100,)) for _ in range(30)]
    for i, x in enumerate(xs):
        x.data[:] = rank + i
    handles = [group.all_reduce(x, async_op=True) for x in xs]
    for i in reversed(range(30)):
        assert handles[i].wait() is xs[i]
        assert (xs[i].data == total + i * size).all() and handles[i].done and handles[i].poll()
    # Different collectives in flight
    gathered = group.all_gather(np.full(2, rank), async_op=True)
    barrier = group.barrier(async_op=True)
    cast = group.broadcast(np.full(3, rank), src=size - 1, async_op=True)
    assert (cast.wait() == size - 1).all()
    assert barrier.wait() is None
    np.testing.assert_array_equal(gathered.wait(), np.repeat(np.arange(size), 2))
    # Many in a row: a rank must never see what another announces for a later one
    x = np.ones(3)
    for i in range(in_a_row):
        group.barrier()
        x[:] = rank + i
        assert group.all_reduce(x)[0] == total + i * size
        group.barrier()


@pytest.mark.parametrize("ranks", RANKS)
def test_handles_can_be_waited_for_in_any_order_and_thousands_follow_one_another(ranks):
    in_a_row = {"in_a_row": 200} if ranks > 2 else {}  # more ranks than cores take turns at each
    launch(asynchronous, ranks, kwargs=in_a_row, timeout=60)


def messages(group):
    size, rank = group.size, group.rank
    right, left = (rank + 1) % size, (rank - 1) % size
    # Order, and far more messages than a channel holds; all ranks receive before they send, without blocking
    received = [group.recv(src=left, async_op=True) for _ in range(200)]
    sent = [group.send(np.full(i % 5, i), right, async_op=True) for i in range(200)]
    for i, handle in enumerate(received):
        message = handle.wait().numpy()
        assert message.shape == (i % 5,) and (message == i).all()
    for handle in sent:
        handle.wait()
    # A message is a copy: the sender may change its tensor at once
    x = np.full(1000, rank)
    group.send(x, right)
    x[:] = -1
    assert (group.recv(src=left).numpy() == left).all()
    # Every kind of tensor, into a given one
    for dtype in (*DTYPES, "bool", "int32", "uint8"):
        for shape in ((), (0,), (3, 0, 2), (2, 3, 4)):
            group.send(np.ones(shape, dtype)[..., ::1] if shape else np.ones((), dtype), right)
            target = np.zeros(shape, dtype)
            assert group.recv(target, src=left) is target
            assert target.all()
    group.send(np.arange(12).reshape(3, 4).T, right)
    target = group.empty((4, 3), "int64")
    group.recv(target, src=left)
    np.testing.assert_array_equal(target.numpy(), np.arange(12).reshape(3, 4).T)
    # The wrong shape is refused, and the message is still there
    group.send(np.ones(3, "float32"), right)
    with pytest.raises(ValueError, match=r"received shape \(3,\) of float32 for a tensor \(4,\) of float32"):
        group.recv(np.zeros(4, "float32"), src=left)
    assert group.recv(src=left).shape == (3,)
    for bad in (np.ones(2, complex), np.ones((1,) * 20)):
        with pytest.raises(ValueError, match="cannot send"):
            group.send(bad, right)


@pytest.mark.parametrize("ranks", (2, 3))
def test_messages_arrive_whole_and_in_order(ranks):
    launch(messages, ranks, timeout=60)


def blocking_sender(group):
    if group.rank == 0:
        for i in range(300):
            group.send(np.array([i]), 1)
    else:
        group.send(np.zeros(1), 0)
        assert [int(group.recv(src=0).numpy()[0]) for _ in range(300)] == list(range(300))
    if group.rank == 0:
        group.recv(src=1)


def test_a_sender_waits_when_the_channel_is_full():
    launch(blocking_sender, 2, timeout=60)


def interleaved_groups(group):
    rank = group.rank
    assert group.size == 4
    rows, columns = group.split(rank // 2), group.split(rank % 2)
    assert (rows.rank, rows.size, columns.rank, columns.size) == (rank % 2, 2, rank // 2, 2)
    reverse = group.split(0, key=-rank)
    assert reverse.rank == 3 - rank
    # Groups made of groups do not share memory with their siblings
    alone, again = rows.split(rank), group.split(rank // 2)
    deeper = rows.split(0).split(0)
    assert (alone.rank, alone.size) == (0, 1)
    everyone = [rows, columns, reverse, alone, again, deeper, group]
    expected = [2 * (rank // 2) * 2 + 1, 2 * (rank % 2) + 2, 6, rank]
    expected = [expected[0], expected[1], 6, rank, expected[0], expected[0], 6]
    for _ in range(50):
        handles = [g.all_reduce(np.full(3, float(rank)), async_op=True) for g in everyone]
        order = list(range(len(everyone)))
        if rank % 2:  # ranks wait in different orders: whoever waits brings on all its groups
            order.reverse()
        for i in order:
            assert (handles[i].wait() == expected[i]).all(), (i, handles[i].result, expected[i])
        rows.send(np.full(2, rank), 1 - rows.rank)
        columns.send(np.full(3, rank), 1 - columns.rank)
        assert columns.recv(src=1 - columns.rank).shape == (3,)
        assert rows.recv(src=1 - rows.rank).shape == (2,)
    return "done"


def test_groups_that_are_split_and_split_again_work_interleaved():
    assert launch(interleaved_groups, 4, timeout=60) == ["done"] * 4


def different_sizes(group):
    group.all_reduce(np.zeros(3 + group.rank, "float32"))


def different_shapes_of_the_same_bytes(group):
    group.all_reduce(np.zeros((2, 3) if group.rank else (3, 2)))


def different_operations(group):
    group.all_reduce(np.zeros(3), "sum" if group.rank else "max")


def different_collectives(group):
    if group.rank:
        group.barrier()
    else:
        group.broadcast(np.zeros(2, "int64"), src=1)


def different_roots(group):
    group.broadcast(np.zeros(2, "int64"), src=group.rank)


def different_dtypes(group):
    group.all_gather(np.zeros(4 - 2 * group.rank, "float64" if group.rank else "float32"))


def different_sizes_said(group):
    group.all_gather(np.zeros(2), sizes=(2, 2) if group.rank else None)


@pytest.mark.parametrize(
    ("work", "calls"),
    [
        (
            different_sizes_said,
            ("all_gather of shape (2,) and float64", "all_gather(sizes=(2, 2)) of shape (-1,) and float64"),
        ),
        (different_sizes, ("all_reduce(sum) of shape (3,) and float32", "all_reduce(sum) of shape (4,) and float32")),
        (
            different_shapes_of_the_same_bytes,
            ("all_reduce(sum) of shape (3, 2) and float64", "all_reduce(sum) of shape (2, 3) and float64"),
        ),
        (
            different_operations,
            ("all_reduce(max) of shape (3,) and float64", "all_reduce(sum) of shape (3,) and float64"),
        ),
        (different_collectives, ("broadcast(src=1) of shape (2,) and int64", "barrier")),
        (different_roots, ("broadcast(src=0) of shape (2,) and int64", "broadcast(src=1) of shape (2,) and int64")),
        (different_dtypes, ("all_gather of shape (4,) and float32", "all_gather of shape (2,) and float64")),
    ],
)
def test_ranks_that_disagree_are_both_named(work, calls):
    with pytest.raises(WorkerError, match="ranks of the group 'world' disagree") as error:
        launch(work, 2, timeout=60)
    for rank, call in enumerate(calls):
        assert f"rank {rank} of world calls {call}" in str(error.value) or f"rank {rank} calls {call}" in str(
            error.value
        )


def different_splits(group):
    """Rank 0 sends more than rank 1 expects: all ranks are told, also those that have nothing to do with it."""
    nothing = [0] * group.size
    sent, received = nothing.copy(), nothing.copy()
    if group.rank == 0:
        sent[1] = 2
    elif group.rank == 1:
        received[0] = 1
    for async_op in (False, True):
        with pytest.raises(RuntimeError, match="in all_to_all rank 0 sends 2 rows to rank 1, which expects 1"):
            result = group.all_to_all(np.zeros(sum(sent)), received, sent, async_op=async_op)
            result.wait()
    assert group.all_reduce(np.ones(1))[0] == group.size  # nothing of it is in the way


@pytest.mark.parametrize("ranks", (2, 3))
def test_ranks_that_disagree_about_what_they_exchange_are_all_told_who_they_are(ranks):
    launch(different_splits, ranks, timeout=60)


def bad_arguments(group):
    def refused(error, match, call):
        with pytest.raises(error, match=match):
            call()

    x = np.zeros(3)
    refused(
        ValueError, "unknown reduction 'avg': choose one of sum, mean, max, min", lambda: group.all_reduce(x, "avg")
    )
    refused(ValueError, "unknown reduction", lambda: group.reduce_scatter(np.zeros(2), "prod"))
    refused(ValueError, "rank 2 is not in a group of 2 ranks", lambda: group.broadcast(x, src=2))
    refused(ValueError, "cannot send to or receive from itself", lambda: group.send(x, group.rank))
    refused(ValueError, "cannot send to or receive from itself", lambda: group.recv(src=group.rank))
    point = np.zeros(())
    for call in (group.reduce_scatter, group.all_to_all, group.all_gather, group.gather):
        message = r"over 2 ranks cannot divide dimension 0 of a tensor of shape \(\)"
        refused(ValueError, message, lambda call=call: call(point))
    refused(ValueError, "cannot divide dimension 0", lambda: group.scatter(point, group.rank))
    refused(TypeError, "scatter needs a Tensor or an array, not a NoneType", lambda: group.scatter(None, group.rank))
    message = r"all_gather needs an out of shape \(6,\) and float64, not \(6,\) and float32"
    refused(ValueError, message, lambda: group.all_gather(x, out=np.zeros(6, np.float32)))
    message = r"reduce_scatter needs an out of shape \(2,\) and float64, not \(3,\)"
    refused(ValueError, message, lambda: group.reduce_scatter(np.zeros(4), out=x))
    message = "reduce_scatter needs a contiguous out"
    refused(ValueError, message, lambda: group.reduce_scatter(np.zeros(4), out=np.zeros(4)[::2]))
    message = "needs an out that overlaps with x at this rank's part of it, or nowhere"
    shared, other = np.zeros(4), slice(2 - 2 * group.rank, 4 - 2 * group.rank)
    refused(ValueError, "all_gather " + message, lambda: group.all_gather(shared[other], out=shared))
    refused(ValueError, "reduce_scatter " + message, lambda: group.reduce_scatter(shared, out=shared[other]))
    refused(TypeError, "all_reduce needs a Tensor or an array, not a list", lambda: group.all_reduce([1.0]))
    refused(TypeError, "all_reduce needs numbers, not an array of <U1", lambda: group.all_reduce(np.array(["a"])))
    refused(TypeError, "send needs a Tensor or an array, not a NoneType", lambda: group.send(None, 1 - group.rank))
    for call in (group.all_reduce, group.reduce, group.reduce_scatter):
        message = f"{call.__name__} needs floating-point numbers for a mean, not an array of int64"
        refused(TypeError, message, lambda call=call: call(np.ones(2, "int64"), op="mean"))
    for call in (group.all_gather, group.gather):
        for sizes in ((3,), (3, 3, 3), (3, -1), (3, 2.5), 3, "33"):
            message = rf"{call.__name__} needs sizes of 2 whole numbers, the rows of each rank, not "
            refused(ValueError, message, lambda call=call, sizes=sizes: call(x, sizes=sizes))
        message = rf"{call.__name__} on rank {group.rank} has 3 rows, not those of sizes \(2, 2\)"
        refused(ValueError, message, lambda call=call: call(x, sizes=(2, 2)))
    message = r"all_gather needs an out of shape \(5,\) and float64, not \(6,\)"
    sizes = (3, 2) if group.rank == 0 else (2, 3)
    refused(ValueError, message, lambda: group.all_gather(x, out=np.zeros(6), sizes=sizes))
    refused(ValueError, "all_to_all needs both output_split_sizes and", lambda: group.all_to_all(x, (1, 1)))
    message = r"input_split_sizes that add up to the 3 rows of x, not \(1, 1\)"
    refused(ValueError, message, lambda: group.all_to_all(x, (1, 1), (1, 1)))
    message = "all_to_all needs output_split_sizes of 2 whole numbers"
    refused(ValueError, message, lambda: group.all_to_all(x, (1, -1), (1, 2)))
    message = f"all_to_all on rank {group.rank} cannot send itself {group.rank + 1} rows and get 3"
    refused(ValueError, message, lambda: group.all_to_all(x, (3, 3), (1, 2)))
    if group.rank == 0:  # the other would wait for it
        refused(ValueError, "cannot scatter an array of dtype complex128", lambda: group.scatter(x.astype(complex)))
    for shape in (-1, (2, -3), (2.5,)):
        refused(ValueError, "needs whole sizes of at least 0", lambda shape=shape: group.empty(shape))
    assert group.empty(4).shape == (4,) and group.empty(()).shape == ()
    assert group.all_reduce(np.ones(1))[0] == 2  # nothing that was refused is in the way


def test_bad_arguments_are_refused_before_anything_is_sent():
    launch(bad_arguments, 2, timeout=60)


def memory_is_reused(group):
    before = group.heap._top
    for _ in range(100):
        group.all_reduce(np.ones(100_000))
        x = group.empty((100_000,), "float64")
        view = x.data[10:]
        del x
        view[:] = 1
        group.all_reduce(view)
        assert view[0] == group.size
    return group.heap._top - before


def test_shared_memory_is_reused_when_tensors_are_dropped():
    assert max(launch(memory_is_reused, 2)) <= 4 << 20
