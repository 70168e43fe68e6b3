"""The textbook algorithms: each gives what NumPy gives, and takes exactly the time that its cost says."""

import queue
import threading

import numpy as np
import pytest

from minidl.parallel import collectives as c

ALPHA, BETA = 1000, 1  # of the links of ClockedGroup: integers, so that times are exact
SIZES = (1, 2, 3, 4, 5, 7, 8)


class ClockedGroup:
    """A rank that is a thread, with a clock that runs on messages alone.

    A message takes ALPHA + BETA * bytes; a rank sends one at a time, and receives one at a time.
    """

    def __init__(self, rank, channels):
        self.rank, self.size, self.channels = rank, len(channels), channels
        self.clock = self.out_free = self.in_free = self.sent = 0

    def send(self, x, dst):
        assert dst != self.rank
        self.out_free = max(self.clock, self.out_free) + ALPHA + BETA * x.nbytes
        self.sent += x.nbytes
        self.channels[self.rank][dst].put((self.out_free, x.copy()))

    def recv(self, x, src):
        arrival, message = self.channels[src][self.rank].get(timeout=60)
        self.in_free = max(arrival, self.in_free + ALPHA + BETA * message.nbytes)
        self.clock = max(self.clock, self.in_free)
        assert (message.shape, message.dtype) == (x.shape, x.dtype)
        np.copyto(x, message)
        return x


def run(function, size):
    """Call `function(group)` on `size` ranks; returns the results and the groups."""
    channels = [[queue.Queue() for _ in range(size)] for _ in range(size)]
    groups, results = [ClockedGroup(rank, channels) for rank in range(size)], [None] * size

    def work(group):
        results[group.rank] = function(group)

    threads = [threading.Thread(target=work, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the algorithm hangs"
    return results, groups


def values(rank, length):
    return np.random.default_rng(rank).integers(-50, 50, length).astype(np.float64)  # whose sums are exact


def elapsed(groups):
    return max(group.clock for group in groups)


ALL_REDUCE = {
    c.ring_all_reduce: c.ring_all_reduce_cost,
    c.tree_all_reduce: c.tree_all_reduce_cost,
    c.recursive_doubling_all_reduce: c.recursive_doubling_all_reduce_cost,
    c.flat_all_reduce: c.flat_all_reduce_cost,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ALL_REDUCE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("op", ["sum", "max", "min"])
def test_all_reduce_gives_every_rank_the_reduction_in_place(algorithm, size, op):
    for length in (0, 1, 3, 2 * size, 2 * size + 1, 840):
        expected = {"sum": np.sum, "max": np.max, "min": np.min}[op]([values(r, length) for r in range(size)], axis=0)

        def work(group, length=length):
            x = values(group.rank, length)
            assert algorithm(group, x, op) is x
            return x

        for result in run(work, size)[0]:
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("algorithm", ALL_REDUCE, ids=lambda f: f.__name__)
def test_all_reduce_gives_every_rank_the_same_bits(algorithm):
    def work(group):
        x = np.random.default_rng(group.rank).standard_normal(101).astype(np.float32)
        return algorithm(group, x).tobytes()

    for size in SIZES:
        assert len(set(run(work, size)[0])) == 1


@pytest.mark.parametrize("size", SIZES)
def test_reduce_and_broadcast_have_their_result_at_any_root(size):
    parts = [values(r, 11) for r in range(size)]
    for root in range(size):
        for reduce in (c.ring_reduce, c.tree_reduce):
            results, _ = run(lambda g, reduce=reduce, root=root: reduce(g, values(g.rank, 11), root), size)
            np.testing.assert_array_equal(results[root], np.sum(parts, axis=0))
        for broadcast in (c.ring_broadcast, c.tree_broadcast):
            results, _ = run(lambda g, broadcast=broadcast, root=root: broadcast(g, values(g.rank, 11), root), size)
            assert all(np.array_equal(result, parts[root]) for result in results)


@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter_all_gather_and_all_to_all_move_the_pieces_of_numpy(size):
    for length in (0, 5, 3 * size):
        total = np.sum([values(r, length) for r in range(size)], axis=0)
        scattered, _ = run(lambda g, n=length: c.ring_reduce_scatter(g, values(g.rank, n)), size)
        for piece, expected in zip(scattered, np.array_split(total, size), strict=True):
            np.testing.assert_array_equal(piece, expected)

        def gather(group, algorithm, total=total):
            x = np.full_like(total, np.nan)
            np.array_split(x, group.size)[group.rank][...] = np.array_split(total, group.size)[group.rank]
            return algorithm(group, x)

        for algorithm in (c.ring_all_gather, c.bruck_all_gather):
            for whole in run(lambda g, a=algorithm: gather(g, a), size)[0]:
                np.testing.assert_array_equal(whole, total)
    exchanged, _ = run(lambda g: c.pairwise_all_to_all(g, values(g.rank, 2 * size).reshape(size, 2)), size)
    for rank, result in enumerate(exchanged):
        np.testing.assert_array_equal(result, [values(r, 2 * size)[2 * rank : 2 * rank + 2] for r in range(size)])


@pytest.mark.parametrize("size", SIZES)
def test_gather_and_scatter_move_the_pieces_of_numpy_to_and_from_any_root(size):
    for length in (0, 5, 3 * size):
        whole = values(9, length)
        pieces = np.array_split(whole, size)
        for root in range(size):
            for gather in (c.flat_gather, c.tree_gather):

                def work(group, gather=gather, root=root, whole=whole, pieces=pieces):
                    x = np.full_like(whole, np.nan)
                    np.array_split(x, group.size)[group.rank][...] = pieces[group.rank]
                    return gather(group, x, root)

                np.testing.assert_array_equal(run(work, size)[0][root], whole)
            for scatter in (c.flat_scatter, c.tree_scatter):

                def work(group, scatter=scatter, root=root, whole=whole):
                    return scatter(group, whole.copy() if group.rank == root else np.full_like(whole, np.nan), root)

                for found, piece in zip(run(work, size)[0], pieces, strict=True):
                    np.testing.assert_array_equal(found, piece)


@pytest.mark.parametrize("size", SIZES)
def test_an_all_to_all_of_uneven_parts_brings_each_rank_the_rows_meant_for_it(size):
    sent = np.random.default_rng(size).integers(0, 3, (size, size))  # rows from each rank to each
    rows = [np.full((sent[r].sum(), 2), r) + np.repeat(np.arange(size), sent[r])[:, None] * 10 for r in range(size)]

    def work(group):
        return c.pairwise_all_to_all(group, rows[group.rank], sent[:, group.rank], sent[group.rank])

    for rank, found in enumerate(run(work, size)[0]):
        expected = np.repeat(np.arange(size), sent[:, rank]) + 10 * rank
        np.testing.assert_array_equal(found, np.stack([expected, expected], 1))


@pytest.mark.parametrize("size", SIZES)
def test_a_ring_shift_gives_each_rank_what_its_left_neighbour_has(size):
    results, _ = run(lambda group: c.ring_shift(group, values(group.rank, 4)), size)
    for rank, found in enumerate(results):
        np.testing.assert_array_equal(found, values((rank - 1) % size, 4))


COSTED = {
    **{algorithm: cost for algorithm, cost in ALL_REDUCE.items() if algorithm is not c.flat_all_reduce},
    c.ring_reduce_scatter: c.COSTS["reduce_scatter"],
    c.ring_all_gather: c.COSTS["all_gather"],
    c.bruck_all_gather: c.TREE_COSTS["all_gather"],
    c.ring_broadcast: c.COSTS["broadcast"],
    c.tree_broadcast: c.TREE_COSTS["broadcast"],
    c.ring_reduce: c.COSTS["reduce"],
    c.tree_reduce: c.TREE_COSTS["reduce"],
    c.pairwise_all_to_all: c.COSTS["all_to_all"],
    c.flat_gather: c.COSTS["gather"],
    c.tree_gather: c.TREE_COSTS["gather"],
    c.flat_scatter: c.COSTS["scatter"],
    c.tree_scatter: c.TREE_COSTS["scatter"],
    c.ring_shift: c.COSTS["send"],
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", COSTED, ids=lambda f: f.__name__)
def test_an_algorithm_takes_alpha_steps_and_beta_bytes_as_its_cost_says(algorithm, size):
    x = np.zeros(840)  # divisible by every size
    _, groups = run(lambda group: algorithm(group, x.copy()), size)
    cost = COSTED[algorithm](size, x.nbytes)
    assert elapsed(groups) == ALPHA * cost.steps + BETA * cost.nbytes


@pytest.mark.parametrize("size", SIZES)
def test_a_barrier_costs_only_steps_and_ends_after_the_last_rank_has_come(size):
    def work(group):
        group.clock = 10**6 if group.rank == size - 1 else 0  # one comes late
        c.dissemination_barrier(group)
        return group.clock

    clocks, groups = run(work, size)
    assert min(clocks) >= 10**6
    _, groups = run(c.dissemination_barrier, size)
    assert elapsed(groups) == ALPHA * c.COSTS["barrier"](size, 0).steps


@pytest.mark.parametrize("size", SIZES)
def test_ring_and_flat_all_reduce_send_exactly_two_times_n_minus_1_of_n_of_the_bytes(size):
    for algorithm, cost in ((c.ring_all_reduce, c.ring_all_reduce_cost), (c.flat_all_reduce, c.flat_all_reduce_cost)):
        _, groups = run(lambda group, a=algorithm: a(group, np.zeros(840)), size)
        assert [group.sent for group in groups] == [2 * (size - 1) * 840 * 8 // size] * size
        assert cost(size, 840 * 8).nbytes == pytest.approx(groups[0].sent)


def test_one_rank_costs_nothing_whatever_the_collective():
    for cost in (*c.COSTS.values(), *c.TREE_COSTS.values(), c.tree_all_reduce_cost, c.flat_all_reduce_cost):
        assert cost(1, 1e6) == c.Cost(0, 0)


def test_trees_take_fewer_steps_and_rings_move_fewer_bytes():
    for name in c.TREE_COSTS.keys() & c.COSTS.keys() - {"barrier"}:
        ring, tree = c.COSTS[name](64, 1e6), c.TREE_COSTS[name](64, 1e6)
        assert tree.steps < ring.steps and tree.nbytes >= ring.nbytes


def test_a_mean_is_refused_as_the_algorithms_only_reduce():
    with pytest.raises(ValueError, match="unknown reduction 'mean': choose one of sum, max, min"):
        c.ring_all_reduce(ClockedGroup(0, [[None]]), np.zeros(4), "mean")


def test_an_array_that_is_not_contiguous_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        c.ring_all_reduce(ClockedGroup(0, [[None]]), np.zeros((4, 4)).T[:2])
