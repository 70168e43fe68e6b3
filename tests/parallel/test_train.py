"""train: what a run reports, and the same training in PyTorch."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.data.batches import batch_indices, epoch_order
from minidl.parallel import Mesh, Plan, train
from minidl.parallel.normalization import SyncBatchNorm
from minidl.parallel.schedules import BACKWARD, FORWARD, Pass
from minidl.trace import COMMUNICATION_LANES, COMPUTE, LANES, Trace

pytestmark = pytest.mark.usefixtures("warm_workers")

TRAIN, TEST = data.digits()


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def build(mesh):
    return models.mlp((64, 48, 32, 24, 10), mesh=mesh)


def run(plan, **options):
    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=64, steps=6, timeout=120) | options
    return train(build, TRAIN, plan, **options)


PLANS = [
    Plan(),
    Plan(data=2, micro_batches=2, bucket_mb=0.004),
    Plan(pipeline=2, micro_batches=4),
    Plan(tensor=2),
    Plan(data=2, pipeline=2, micro_batches=2, bucket_mb=0.004),
]


@cache
def ran(plan):
    return run(plan)


def test_callbacks_are_told_every_step_in_order_with_its_evaluation():
    told, also = [], []
    result = run(Plan(data=2), steps=9, evaluate=TEST, evaluate_every=4, callbacks=[told.append, also.append])
    assert [r.step for r in told] == list(range(9)) and told == also
    assert [r.loss for r in told] == result.losses and [r.seconds for r in told] == result.step_times
    assert [r.step + 1 for r in told if r.evaluation] == [4, 8, 9]
    assert [r.evaluation for r in told if r.evaluation] == result.evaluations
    assert [e.step for e in result.evaluations] == [4, 8, 9]
    assert 0 <= result.evaluations[-1].accuracy <= 1


def test_an_evaluation_is_that_of_the_parameters_at_that_step():
    result = run(Plan(pipeline=2), steps=3, evaluate=TEST, dtype="float64")
    model = build(Mesh({}))
    model.load_state_dict(result.state_dict())
    with minidl.no_grad():
        output = model(minidl.tensor(TEST.x))
        loss = nn.CrossEntropyLoss()(output, minidl.tensor(TEST.y))
    (evaluation,) = result.evaluations
    assert evaluation.loss == pytest.approx(float(loss), rel=1e-5)
    assert evaluation.accuracy == pytest.approx(np.mean(output.numpy().argmax(-1) == TEST.y), abs=1e-3)


def test_an_evaluation_is_without_dropout_and_does_not_disturb_training():
    def with_dropout(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))

    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=64, steps=5)
    plain = train(with_dropout, TRAIN, Plan(data=2), **options)
    watched = train(with_dropout, TRAIN, Plan(data=2), evaluate=TEST, evaluate_every=1, **options)
    assert plain.losses == watched.losses
    again = train(with_dropout, TRAIN, Plan(data=2), evaluate=TEST, evaluate_every=5, **options)
    assert again.evaluations[-1] == watched.evaluations[-1]


def test_the_state_has_the_names_and_shapes_of_the_whole_model():
    model = build(Mesh({}))
    for plan in PLANS:
        state = ran(plan).state_dict()
        assert [(name, value.shape) for name, value in state.items()] == [
            (name, tuple(p.shape)) for name, p in model.state_dict().items()
        ]


def test_the_digits_are_learnt_in_parallel():
    result = run(Plan(data=2), steps=400, evaluate=TEST, lr_schedule=lambda step: 1 - step / 400)
    assert result.evaluations[-1].accuracy >= 0.95


def test_a_callable_class_and_a_model_that_is_no_sequential_can_be_trained():
    class Net(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(x.reshape(-1, 64))

    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=64, steps=4, dtype="float64")
    one, two = (train(lambda mesh: Net(), TRAIN, plan, **options) for plan in (Plan(), Plan(data=2)))
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-12)
    assert list(one.state_dict()) == ["linear.weight", "linear.bias"]


def test_torch_trains_the_same_model_to_the_same_parameters():
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    steps, batch_size, clip = 5, 96, 0.05
    result = run(
        Plan(data=2, pipeline=2, micro_batches=2), steps=steps, batch_size=batch_size, clip_norm=clip, dtype="float64"
    )
    with minidl.device("meta"):
        initial = build(Mesh({}))
    initial.materialize(0, dtype=np.float64)
    layers = [torch.nn.Flatten()]
    for a, b in ((64, 48), (48, 32), (32, 24), (24, 10)):
        layers += [torch.nn.Linear(a, b, dtype=torch.float64), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    model.load_state_dict({name: torch.tensor(p.numpy()) for name, p in initial.state_dict().items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    order, losses = epoch_order(len(TRAIN), 0, 0), []
    for step in range(steps):
        x, y = TRAIN[batch_indices(order, step, batch_size)]
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(x, dtype=torch.float64)), torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    assert norm > clip
    np.testing.assert_allclose(result.losses, losses, rtol=1e-10)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(result.state_dict()[name], value.numpy(), rtol=1e-9, atol=1e-12)


# The trace of a run


def merged_names(events):
    """Names in the order in which they began, pieces of one instruction that follow one another taken together."""
    names = []
    for event in events:
        if not names or names[-1] != event.name:
            names.append(event.name)
    return names


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_every_instruction_is_in_the_trace_of_each_step_once_and_in_order(plan):
    result = ran(plan)
    for step in result.trace.steps():
        for rank in range(plan.workers):
            program = result.program[rank].step
            own = [e for e in step.events if e.rank == rank]
            compute = [e.name for e in own if e.lane == COMPUTE]
            communication = [e.name for lane in COMMUNICATION_LANES for e in own if e.lane == lane]
            listed = [i.name for lane in COMMUNICATION_LANES for i in program if i.lane == lane]
            if plan.tensor == 1:
                assert compute == [i.name for i in program if i.lane == COMPUTE]
                assert communication == listed
            else:  # a collective inside a layer cuts its instruction in two and is an event of its own
                inside = Counter(communication) - Counter(listed)
                assert set(inside) == {"all_reduce"}
                assert merged_names([e for e in own if e.lane == COMPUTE]) == [
                    i.name for i in program if i.lane == COMPUTE
                ]
                pieces = len([i for i in program if i.lane == COMPUTE]) + inside["all_reduce"]
                assert len(compute) == pieces


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_lane_does_one_thing_at_a_time_and_no_event_ends_before_it_starts(plan):
    for step in ran(plan).trace.steps():
        for rank in range(plan.workers):
            for lane in LANES:
                events = [e for e in step.events if e.rank == rank and e.lane == lane]
                assert all(e.start <= e.end for e in events)
                assert all(a.end <= b.start for a, b in zip(events, events[1:], strict=False))


def test_early_buckets_are_reduced_before_the_backward_pass_has_ended():
    result = ran(PLANS[1])
    overlaps = 0
    for step in result.trace.steps():
        for rank in range(2):
            own = [e for e in step.events if e.rank == rank]
            last_backward = max(e.start for e in own if e.name.startswith("B"))
            overlaps += min(e.start for e in own if e.name.startswith("reduce ")) < last_backward
    assert overlaps > 0
    names = [i.name for i in result.program[0].step]
    assert names.index("reduce 1") < len(names) - 1 - names[::-1].index("B1")


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_trace_of_a_step_fits_into_the_time_measured_around_it(plan):
    result = ran(plan)
    last = plan.workers - 1  # the rank that reports the times
    for step, seconds in zip(result.trace.steps(), result.step_times, strict=True):
        own = [e for e in step.events if e.rank == last]
        assert 0 < max(e.end for e in own) - min(e.start for e in own) <= seconds
    assert 0 < result.trace.busy_fraction(last) <= 1
    assert 0 <= result.trace.bubble_fraction < 1
    assert result.trace.exposed_communication >= 0


def test_a_trace_keeps_the_last_steps_alone(tmp_path):
    result = run(Plan(data=2), steps=8, trace_steps=3)
    assert sorted({e.step for e in result.trace.events}) == [5, 6, 7]
    result.trace.save(tmp_path / "trace.json")
    assert len(Trace.load(tmp_path / "trace.json").events) == len(result.trace.events)
    assert {r["pid"] for r in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]} == {0, 1}


def test_a_run_can_be_repeated_bit_by_bit():
    for plan in PLANS[1:3]:
        again = run(plan)
        assert again.losses == ran(plan).losses
        assert all(np.array_equal(again.state_dict()[n], v) for n, v in ran(plan).state_dict().items())
    assert run(Plan(), seed=1).losses != ran(Plan()).losses


# The last batch of an epoch

NUMBERS = np.random.default_rng(0).standard_normal((34, 6)).astype("f")
POINTS = data.ArrayDataset(NUMBERS, NUMBERS.argmax(1) % 3)


def batch_norm(mesh, norm=lambda mesh: nn.BatchNorm1d(8)):
    return nn.Sequential(nn.Linear(6, 8), norm(mesh), nn.ReLU(), nn.Linear(8, 3))


def with_sync(mesh):
    return batch_norm(mesh, lambda mesh: SyncBatchNorm(8, mesh.group("data", "context")))


def of_places(mesh):
    return nn.Sequential(Places(), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 3))


class Places(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 3, 2)  # (batch, channels, length)


def train_on_points(build, plan, **options):
    options = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=8, steps=6, timeout=120) | options
    return train(build, POINTS, plan, **options)


@pytest.mark.parametrize(
    ("build", "plan", "options"),
    [
        (batch_norm, Plan(), {}),  # of the 2 samples left, one worker has both
        (batch_norm, Plan(data=2), {"drop_last": True}),
        (batch_norm, Plan(data=2), {"steps": 4}),  # the short batch would be the fifth
        (of_places, Plan(data=2), {}),  # one sample, two places
        (with_sync, Plan(data=2), {}),  # one sample in each replica, two in both
        (batch_norm, Plan(data=2), {"evaluate": POINTS, "steps": 2}),  # evaluation takes the running statistics
    ],
)
def test_batch_norm_trains_where_every_micro_batch_has_more_than_one_value(build, plan, options):
    result = train_on_points(build, plan, **options)
    assert np.isfinite(result.losses).all() and len(result.losses) == options.get("steps", 6)


def test_batch_norm_is_refused_a_last_batch_that_leaves_one_value_before_a_process_starts(monkeypatch):
    monkeypatch.setattr("minidl.parallel.runtime.launch.ChildProcess", None)
    with pytest.raises(
        ValueError, match="of 34 samples, the last batch of an epoch has 2, a micro-batch of it "
    ) as one:
        train_on_points(batch_norm, Plan(data=2))
    assert "not the input (1, 8); choose another batch_size than 8, or drop_last" in str(one.value)
    with pytest.raises(ValueError, match=r"\(data=1, micro_batches=2\) 1: batch_norm"):
        train_on_points(batch_norm, Plan(micro_batches=2))


def test_with_drop_last_an_epoch_has_whole_batches_alone():
    def nothing_is_learnt(step):
        return 0.0

    options = dict(batch_size=16, steps=5, drop_last=True, lr_schedule=nothing_is_learnt)
    losses = train_on_points(batch_norm, Plan(), **options).losses
    with minidl.device("meta"):
        model = batch_norm(Mesh({}))
    model.materialize(0)
    for step, loss in enumerate(losses):
        x, y = POINTS[batch_indices(epoch_order(34, 0, step // 2), step % 2, 16)]
        assert loss == pytest.approx(float(nn.CrossEntropyLoss()(model(minidl.tensor(x)), minidl.tensor(y))), rel=1e-5)


class Twice(nn.Module):
    def forward(self, x):
        return x, x


WRONG_ARGUMENTS = {
    "a model instead of a builder": ({"build": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}, "given as a builder"),
    "an optimizer that is made already": ({"optimizer": sgd([nn.Linear(2, 2).weight])}, "must be a function"),
    "a function that returns no optimizer": ({"optimizer": lambda parameters: None}, "returns an Optimizer"),
    "a loss without sum and weight": ({"loss": lambda output, target: 0}, "sum_and_weight"),
    "a loss that is a sum": ({"loss": nn.MSELoss(reduction="sum")}, "reduction='sum': training needs the mean"),
    "a block that makes a tuple with another in it": (
        {"build": lambda mesh: nn.Sequential(nn.Flatten(), nn.LSTM(64, 10))},
        "LSTM made a tuple in a tuple of a tensor on meta",
    ),
    "a loss that takes one tensor of a tuple": (
        {"build": lambda mesh: nn.Sequential(nn.Flatten(), Twice())},
        "CrossEntropyLoss takes no tuple, as the last block gives it",
    ),
    "a list as data set": ({"dataset": [1, 2, 3]}, "ArrayDataset"),
    "a number to evaluate": ({"evaluate": 5}, "the data set to evaluate"),
    "a function for callbacks": ({"callbacks": print}, "sequence of functions"),
    "integers as parameters": ({"dtype": "int64"}, "use float32 or float64"),
    "batches larger than the data": ({"dataset": POINTS, "drop_last": True}, "drop_last leaves nothing of 34 samples"),
    "a negative seed": ({"seed": -1}, "seed=-1"),
    "a tensor plan for a whole model": ({"build": models.builder("lstm-digits"), "plan": Plan(tensor=2)}, "splits no"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused_in_one_sentence_before_a_process_starts(case, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    changed, sentence = WRONG_ARGUMENTS[case]
    given = {
        "build": build,
        "dataset": TRAIN,
        "plan": Plan(),
        "optimizer": sgd,
        "loss": nn.CrossEntropyLoss(),
    } | changed
    with pytest.raises((TypeError, ValueError), match=sentence) as refused:
        train(**given, batch_size=64, steps=1)
    assert "\n" not in str(refused.value)


def test_an_order_of_the_users_own_trains_to_the_same_numbers_and_is_named_in_a_checkpoint(tmp_path):
    def two_ahead(stage, stages, micro_batches, chunks):  # no worker could import it: it goes there by value
        warm_up = min(2 * (stages - stage - 1), micro_batches)
        yield from (Pass(FORWARD, m) for m in range(warm_up))
        for m in range(micro_batches):
            yield from [Pass(FORWARD, m + warm_up)] * (m + warm_up < micro_batches)
            yield Pass(BACKWARD, m)

    plan, path = Plan(pipeline=2, micro_batches=4, schedule=two_ahead), tmp_path / "run.safetensors"
    result = run(plan, steps=4, save=path, evaluate=TEST)
    np.testing.assert_allclose(result.losses, ran(PLANS[0]).losses[:4], rtol=1e-5)
    assert [e.name for e in result.trace.steps()[-1].events if e.rank == 0 and e.name[0] in "FB"] == [
        "F0", "F1", "F2", "B0", "F3", "B1", "B2", "B3"
    ]  # fmt: skip
    assert minidl.load(path)["plan"]["schedule"] == "two_ahead"
    assert run(plan, steps=6, resume=path).losses == pytest.approx(ran(PLANS[0]).losses[4:], rel=1e-4)


def test_workers_run_the_program_as_it_was_edited():
    def loads_first(program):
        lists = {rank: program[rank] for rank in range(program.world_size)}
        loads = {rank: [i for i in own.step if i.label == "input"] for rank, own in lists.items()}
        others = {rank: [i for i in own.step if i.label != "input"] for rank, own in lists.items()}
        return program.edit({rank: replace(lists[rank], step=(*loads[rank], *others[rank])) for rank in lists})

    plan = PLANS[1]
    result = run(plan, edit=loads_first)
    assert result.losses == ran(plan).losses
    for rank in range(plan.workers):
        names = [e.name for e in result.trace.steps()[-1].events if e.rank == rank and e.lane == COMPUTE]
        assert names[:3] == ["input0", "input1", "F0"]
    assert set(result.program.edited) == {0, 1} and not ran(plan).program.edited
