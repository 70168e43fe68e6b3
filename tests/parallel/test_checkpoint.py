"""A training that is resumed gives, to the last bit, what it would have given had it never ended."""

import os

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.nn import init
from minidl.nn.parameter import Buffer
from minidl.parallel import Plan, WorkerError, train
from minidl.parallel.mesh import Mesh

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]
TRAIN = data.ArrayDataset(DIGITS.x[:100], DIGITS.y[:100])  # 7 batches of 16, the last of them short


class Centred(nn.Module):
    """Subtracts the mean of all samples so far: a buffer that each replica has for itself, and that forward reads."""

    def __init__(self, features):
        self.sum, self.count = Buffer((features,), init=init.zeros()), Buffer((1,), init=init.zeros())

    def forward(self, x):
        if self.training and x.device == "cpu":
            self.sum, self.count = self.sum + x.detach().sum(0), self.count + x.shape[0]
        return x - self.sum / (self.count + 1)


def build(mesh):
    first, *rest = models.mlp((64, 48, 32, 10), mesh=mesh).blocks[1:]
    of_features = [nn.BatchNorm1d(48), Centred(48)] if mesh.size("tensor") == 1 else []  # of which each has its own
    return nn.Sequential(nn.Flatten(), first, *of_features, nn.Dropout(0.3), *rest)


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters):
    """Weight decay for matrices alone."""
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim == 1]
    groups = {"params": matrices, "weight_decay": 0.1}, {"params": others}
    return optim.Adam([group for group in groups if group["params"]], lr=0.01)


def run(plan=None, **options):
    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=16, steps=8, timeout=120) | options
    return train(build, TRAIN, plan, **options)


RUNS = {
    "one": (Plan(micro_batches=2), sgd),
    "data": (Plan(data=2, bucket_mb=0.004), adam),
    "pipeline": (Plan(pipeline=2, micro_batches=2), sgd),
    "sharded": (Plan(data=3, sharding="optimizer", bucket_mb=0.004), adam),
    "sharded parameters": (Plan(data=2, sharding="parameters", bucket_mb=0.004), adam),
    "tensor and data, sharded": (Plan(data=2, tensor=2, sharding="optimizer"), optim.LAMB),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_run_goes_on_to_the_bits_of_one_that_was_not_interrupted(tmp_path, case):
    plan, optimizer = RUNS[case]
    options = dict(
        optimizer=optimizer, batch_size=27 if plan.data == 3 else 16, clip_norm=1.0, lr_schedule=lambda step: 0.9**step
    )
    whole = run(plan, save=tmp_path / "whole", **options)
    first = run(plan, steps=5, save=tmp_path / "half", **options)
    second = run(plan, resume=tmp_path / "half", save=tmp_path / "both", **options)
    assert first.losses + second.losses == whole.losses
    assert (whole.first_step, second.first_step, first.saved_step, second.saved_step) == (0, 5, 5, 8)
    assert {event.step for event in second.trace.events} == {5, 6, 7}
    # Byte by byte: parameters, buffers of every replica, optimizer state, and all that is said of the run.
    assert (tmp_path / "both").read_bytes() == (tmp_path / "whole").read_bytes() != (tmp_path / "half").read_bytes()


def test_a_checkpoint_fits_a_model_and_an_optimizer_of_ones_own(tmp_path):
    result = run(Plan(data=2, sharding="optimizer"), optimizer=adam, save=tmp_path / "x")
    saved = minidl.load(tmp_path / "x")
    assert (saved["step"], saved["seed"], saved["schedule"]) == (8, 0, None)
    model = build(Mesh({}))
    model.load_state_dict(saved["model"])
    assert all(np.array_equal(x.numpy(), result.state_dict()[name]) for name, x in model.state_dict().items())
    optimizer = adam(list(model.parameters()))
    optimizer.load_state_dict(saved["optimizer"])
    for parameter, state in optimizer.state.items():
        assert state["step"] == 8 and state["mean"].shape == state["square"].shape == (parameter.numel(),)


def test_a_run_goes_on_in_its_file_after_a_callback_has_ended_it(tmp_path):
    path = tmp_path / "x.safetensors"

    def stop(record):
        if record.step == 8:
            raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough") as caught:
        run(Plan(data=2), steps=10_000, callbacks=[stop], save=path, save_every=3)
    done = minidl.load(path)["step"]
    wanted = run(Plan(data=2), steps=done + 2).losses
    assert done == caught.value.run.saved_step >= 9  # the workers may be some steps ahead of the callback
    assert run(Plan(data=2), steps=done + 2, resume=path).losses == wanted[done:]
    assert minidl.load(path)["step"] == done + 2


class Fails(nn.Module):
    """Raises in the eighth forward of training."""

    def __init__(self):
        self.count = Buffer((1,), init=init.zeros())

    def forward(self, x):
        self.count = self.count + 1
        if x.device == "cpu" and float(self.count) == 8:
            raise ArithmeticError("enough")
        return x


def test_an_error_of_a_worker_carries_the_losses_so_far_and_the_step_of_the_last_checkpoint(tmp_path):
    def failing(mesh):
        return nn.Sequential(Fails(), *build(mesh).blocks)

    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=16, timeout=120)
    with pytest.raises(WorkerError, match="ArithmeticError: enough") as caught:
        train(failing, TRAIN, Plan(), steps=20, save=tmp_path / "x", save_every=3, **options)
    result = caught.value.run
    assert len(result.losses) == len(result.step_times) == 7 and result.saved_step == 6
    assert result.losses == train(failing, TRAIN, Plan(), steps=7, **options).losses
    assert minidl.load(tmp_path / "x")["step"] == 6 and result.state_dict() == {}


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_at_the_end_an_error_with_all_there_is(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()

    def remove(record):
        if record.step == 0:
            folder.rmdir()

    with (
        pytest.warns(UserWarning, match="no checkpoint after step 20: .*No such file or directory: '.*/folder/x'"),
        pytest.raises(FileNotFoundError, match="/folder/x'$") as caught,
    ):
        run(steps=40, callbacks=[remove], save=folder / "x", save_every=20)
    result = caught.value.run
    assert result.save_error is caught.value
    assert len(result.losses) == 40 and result.trace.events
    assert result.state_dict().keys() == build(Mesh({})).state_dict().keys()


def test_a_checkpoint_is_written_where_its_path_led_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run(steps=40, callbacks=[lambda record: os.chdir(tmp_path / "elsewhere")], save="x")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "x"] and os.listdir(tmp_path / "elsewhere") == []


def test_an_error_of_the_schedule_is_its_own(saved):
    with pytest.raises(TypeError, match="^the rate$") as caught:
        run(resume=saved / "x", lr_schedule=lambda step: exec('raise TypeError("the rate")'))
    assert not hasattr(caught.value, "run")


# What cannot be gone on with


BAD_STEPS = (-5, 0, 2.5, "two", True, None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    run(steps=2, save=folder / "x", lr_schedule=lambda step: 0.5)
    minidl.save(build(Mesh({})).state_dict(), folder / "parameters")
    (folder / "text").write_text("text")
    minidl.save({"kind": "minidl checkpoint 1", "step": 1}, folder / "half")
    for step in BAD_STEPS:
        minidl.save(minidl.load(folder / "x") | {"step": step}, folder / f"step {step}")
    return folder


def wider(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 49), *build(mesh).blocks[2:])


def deeper(mesh):
    return nn.Sequential(*build(mesh).blocks, nn.Linear(10, 10))


OTHERS = {
    "seed": ({"seed": 1}, "seed 0 there and 1 here"),
    "seed, under another plan": ({"seed": 1, "plan": Plan(data=2)}, "seed 0 there and 1 here"),
    "batch size": ({"batch_size": 32}, "batch_size 16 there and 32 here"),
    "data": ({"dataset": DIGITS}, "samples 100 there and 1437 here"),
    "drop_last": ({"drop_last": True}, "drop_last False there and True here"),
    "dtype": ({"dtype": "float64"}, "dtype float32 there and float64 here"),
    "clipping": ({"clip_norm": 1.0}, "clip_norm None there and 1.0 here"),
    "optimizer": ({"optimizer": optim.Adam}, "optimizer name=SGD there and name=Adam here"),
    "its options": (
        {"optimizer": lambda p: optim.SGD(p, lr=0.2, momentum=0.9)}, "of 1.weight lr=0.1 there and lr=0.2 here"
    ),
    "a schedule": ({"lr_schedule": lambda step: 0.25}, "schedule 0.5 there and 0.25 here"),
    "no schedule": ({"lr_schedule": None}, "schedule 0.5 there and None here"),
    "a deeper model": ({"build": deeper}, "9.weight does not exist there and has shape (10, 10) here"),
    "steps that are done": ({"steps": 2}, "has done 2 steps already: steps=2 asks for no more"),
    "parameters": ({"resume": "parameters"}, "parameters is no checkpoint to go on from"),
    "another file": ({"resume": "text"}, "text is not a whole .safetensors file"),
    "half a checkpoint": ({"resume": "half"}, "half is no whole checkpoint"),
    **{f"step {step}": ({"resume": f"step {step}"}, "does not say how many steps were done") for step in BAD_STEPS},
    "no file": ({"resume": "nothing"}, "nothing"),
    "no file to save to": ({"save_every": 1, "resume": None}, "save_every=1 needs save, the file to write"),
    "no number": ({"save": "x", "save_every": 0}, "save_every=0 is not a whole number of at least 1"),
    "a folder": ({"save": "."}, "Is a directory: '.'"),
    "no name": ({"save": ""}, "Is a directory: '.'"),
    "no folder": ({"save": "nowhere/x"}, "No such file or directory: 'nowhere/x'"),
    "a folder that takes no files": ({"save": "/proc/x"}, "'/proc/x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_another_run_is_refused_in_one_sentence_before_a_process_starts(saved, monkeypatch, case):
    monkeypatch.setattr("minidl.parallel.runtime.launch.ChildProcess", None)
    changed, sentence = OTHERS[case]
    options = dict(
        build=build, dataset=TRAIN, optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=16, steps=8,
        lr_schedule=lambda step: 0.5,
    ) | changed  # fmt: skip
    name = options.get("resume", "x")
    options["resume"] = name and saved / name
    with pytest.raises((ValueError, OSError)) as refused:
        train(**options)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    if "there and" in sentence:
        assert "x was written by another run: " in str(refused.value)


def test_options_that_no_file_can_hold_are_refused_before_a_process_starts(tmp_path, monkeypatch):
    class Odd(optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "function": print})

        def update(self, parameter, gradient, state, options, scale):
            pass

    monkeypatch.setattr("minidl.parallel.runtime.launch.ChildProcess", None)
    with pytest.raises(TypeError, match="optimizer.param_groups.0.function cannot be saved: it is a builtin"):
        run(optimizer=Odd, save=tmp_path / "x")


def test_a_model_of_which_a_part_is_frozen_goes_on_to_the_same_bits(tmp_path):
    def frozen(mesh):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))
        for parameter in model.blocks[2].parameters():
            parameter.requires_grad_(False)
        return model

    def train_it(steps, **options):
        return train(
            frozen, data.digits()[0], Plan(data=2, sharding="optimizer"), optimizer=lambda p: optim.Adam(p, lr=0.01),
            loss=nn.CrossEntropyLoss(), batch_size=32, steps=steps, timeout=60, **options,
        )  # fmt: skip

    whole, path = train_it(6), tmp_path / "checkpoint"
    train_it(3, save=path)
    again = train_it(6, resume=path)
    assert again.losses == whole.losses[3:]
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
