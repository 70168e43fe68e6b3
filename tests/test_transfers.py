"""Copies between host and GPU: what arrives is right however far the GPU is behind, and no memory is lost or reused."""

import gc
import weakref

import numpy as np
import pytest

import minidl
from minidl import data, nn, optim
from minidl.kernels import for_device
from minidl.kernels.cuda import compute, device, pool
from minidl.kernels.cuda.device_memory import downloads, uploads
from minidl.kernels.cuda.staging import staging

k = for_device("cuda")

BEHIND = {
    "nothing": (),
    "compute": (compute,),
    "uploads": (uploads,),
    "downloads": (downloads,),
    "all": (compute, uploads, downloads),
}


@pytest.fixture(params=BEHIND)
def behind(request, monkeypatch):
    """Some streams do their work only when somebody waits for it."""
    minidl.cuda.empty_cache()
    for stream in BEHIND[request.param]:
        monkeypatch.setattr(stream, "late", True)
    yield
    device.synchronize()


def pinned(*values):
    return minidl.tensor(values).pin_memory()


def test_a_pinned_tensor_has_the_values_and_is_known_by_its_views(behind):
    x = minidl.arange(6.0).reshape(2, 3)
    y = x.pin_memory()
    assert (y.numpy() == x.numpy()).all() and y.shape == (2, 3)
    assert y.is_pinned() and y[1:].is_pinned() and not x.is_pinned() and not (y + 1).is_pinned()
    assert y.pin_memory() is y
    with pytest.raises(RuntimeError, match="only a tensor on the CPU can be pinned, not one on cuda"):
        x.to("cuda").pin_memory()
    assert not x.to("cuda").is_pinned()


def test_after_a_copy_that_waits_the_pinned_tensor_may_change(behind):
    x = pinned(1.0, 2.0)
    y = x.to("cuda")
    x.fill_(7.0)
    assert y.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("non_blocking", [False, True])
def test_a_pinned_block_is_used_again_only_when_the_copy_from_it_is_done(behind, non_blocking):
    kept = [pinned(float(i), float(i)).to("cuda", non_blocking=non_blocking) for i in range(8)]
    assert [x.numpy().tolist() for x in kept] == [[i, i] for i in range(8)]
    found = [(x * 2).to("cpu", non_blocking=non_blocking) for x in kept]
    minidl.cuda.synchronize()
    assert [x.numpy().tolist() for x in found] == [[2 * i, 2 * i] for i in range(8)]


@pytest.mark.parametrize("size", [3, 20_000])  # copied by way of pinned memory, and waited for
def test_the_host_may_change_the_values_of_a_tensor_when_it_has_given_them(behind, size):
    values = np.ones(size, np.float32)
    x = minidl.tensor(values, device="cuda")
    values[...] = 2
    assert (x.numpy() == 1).all()


def test_a_training_gives_the_same_however_far_the_gpu_is_behind(behind):
    def losses(device):
        minidl.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2)).to(device)
        optimizer, found = optim.Adam(model.parameters(), lr=0.1), []
        for i in range(4):
            x, y = minidl.arange(6.0).reshape(2, 3) + i, minidl.tensor([0, 1])
            x, y = (t.pin_memory().to(device, non_blocking=True) for t in (x, y))
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.detach().to("cpu", non_blocking=True))
        minidl.cuda.synchronize()
        return [loss.item() for loss in found]

    np.testing.assert_allclose(losses("cuda"), losses("cpu"), rtol=1e-4)


def test_pinned_blocks_are_used_again(monkeypatch):
    device.synchronize()
    pinned(1.0, 2.0).to("cuda", non_blocking=True)
    monkeypatch.setattr(device, "pinned", lambda nbytes: pytest.fail("more pinned memory"))
    for _ in range(3):
        pinned(1.0, 2.0).to("cuda", non_blocking=True)


def test_kernels_after_a_copy_beside_them_see_the_values_and_those_before_what_was_there(behind):
    total = minidl.zeros(2, device="cuda")
    for i in range(5):
        x = pinned(1.0, float(i)).to("cuda", non_blocking=True)
        total += x
        del x  # its memory may be written by the next copy, though the sum is not computed yet
    assert total.numpy().tolist() == [5, 10]


def test_a_copy_back_gives_what_the_tensor_was_when_it_began(behind):
    x = minidl.ones(3, device="cuda")
    y = x.to("cpu", non_blocking=True)
    x *= 5
    minidl.cuda.synchronize()
    assert y.numpy().tolist() == [1, 1, 1] and x.numpy().tolist() == [5, 5, 5]


def test_the_source_of_a_copy_back_is_not_written_before_the_copy_is_done(behind):
    found = []
    for i in range(5):
        found.append((minidl.ones(3, device="cuda") * i).to("cpu", non_blocking=True))
        minidl.full((3,), 99.0, device="cuda") + 1  # finds the memory that was freed, if any was
    minidl.cuda.synchronize()
    assert [x.numpy().tolist() for x in found] == [[i] * 3 for i in range(5)]


def test_after_the_last_copy_back_no_memory_is_held(behind):
    before = minidl.cuda.memory_allocated()
    x = minidl.ones(1000, device="cuda").to("cpu", non_blocking=True)
    minidl.cuda.synchronize()
    assert minidl.cuda.memory_allocated() == before
    free = device.free_memory()
    minidl.cuda.empty_cache()
    assert device.free_memory() >= free + 4096
    assert (x.numpy() == 1).all()


def test_memory_whose_copy_back_is_not_done_counts_as_kept_and_serves_again_when_it_is(behind):
    minidl.ones(1000, device="cuda").to("cpu", non_blocking=True)
    reserved = minidl.cuda.memory_reserved()
    minidl.cuda.synchronize()
    for _ in range(3):
        minidl.ones(1000, device="cuda").to("cpu", non_blocking=True)
        minidl.cuda.synchronize()
    assert minidl.cuda.memory_reserved() <= reserved + 4096


def test_a_loader_gives_pinned_batches_whose_copies_are_right(behind):
    x, y = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20)
    loader = data.DataLoader(data.ArrayDataset(x, y), batch_size=4, pin_memory=True)
    for non_blocking in (False, True):
        sums = []
        for images, labels in loader:
            assert images.is_pinned() and labels.is_pinned()
            images, labels = (t.to("cuda", non_blocking=non_blocking) for t in (images, labels))
            sums.append((images.sum(), labels.sum()))
        assert [int(s.item()) for s, _ in sums] == x.reshape(5, 8).sum(1).tolist()
        assert [s.item() for _, s in sums] == y.reshape(5, 4).sum(1).tolist()


def test_an_event_is_done_when_its_stream_has_come_to_it(monkeypatch):
    monkeypatch.setattr(compute, "late", True)
    event = device.Event(compute)
    assert not event.done()
    device.synchronize()
    assert event.done()
    device.Event(compute).synchronize()


def test_emptying_gives_back_pinned_memory_and_what_is_kept_for_pooling_and_dropout():
    minidl.cuda.empty_cache()
    held, free = minidl.cuda.memory_allocated(), device.free_memory()
    x = minidl.ones(1, 1, 4, 4, device="cuda")
    minidl.ops.max_pool2d(x, 2)
    minidl.ops.dropout(x, 0.5)
    block = weakref.ref(staging.take((700,), np.dtype(np.float32)))
    del x
    minidl.cuda.empty_cache()
    assert (minidl.cuda.memory_allocated(), device.free_memory()) == (held, free)
    assert block() is None and not staging.free and not staging.leaving


def test_pinned_memory_that_is_kept_is_given_back_before_it_is_said_to_be_out(monkeypatch):
    minidl.cuda.empty_cache()
    pinned(*range(300))
    assert staging.free or staging.leaving
    real = device.pinned

    def scarce(nbytes):
        if staging.free or staging.leaving:
            raise device.OutOfMemory
        return real(nbytes)

    monkeypatch.setattr(device, "pinned", scarce)
    assert pinned(*range(2000)).is_pinned()


def test_out_of_pinned_memory_says_what_was_asked_and_what_is_held(monkeypatch):
    minidl.cuda.empty_cache()
    gc.collect()
    held = staging.held
    x = pinned(1.0)

    def none(nbytes):
        raise device.OutOfMemory

    monkeypatch.setattr(device, "pinned", none)
    with pytest.raises(MemoryError) as error:
        minidl.zeros(20_000).pin_memory()
    now = minidl.units.scaled(held + 512, "B")
    assert str(error.value) == f"the host can pin no more memory: 80 kB asked for, {now} held by arrays"
    assert x.is_pinned()


def test_what_is_freed_while_kept_memory_is_given_back_is_not_lost(monkeypatch):
    minidl.cuda.empty_cache()
    free, last = device.free_memory(), minidl.ones(100, device="cuda")
    minidl.ones(200, device="cuda")
    release, real = [last], device.release
    del last

    def collecting(block):
        release.clear()  # as the garbage collector does, whenever it likes
        real(block)

    monkeypatch.setattr(device, "release", collecting)
    pool.empty()
    pool.empty()
    assert device.free_memory() == free and pool.kept == 0
