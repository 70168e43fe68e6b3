"""Cross-entropy of logits whose classes are split over ranks is that of the whole ones, and nobody has those."""

import numpy as np
import pytest

import minidl
from minidl import models, nn, ops
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import Mesh, Plan, launch
from minidl.parallel.losses import SplitClasses, loss_of_output
from minidl.parallel.prepare import prepare

pytestmark = pytest.mark.usefixtures("warm_workers")

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((3, 5, 12)) * 4
TARGET = RNG.integers(0, 12, (3, 5))
TARGET[0, :2] = -100
LOGITS[1, 1, [2, 7]] = 30.0  # two largest ones, of different ranks


def loss_and_gradient(loss, logits):
    logits = minidl.tensor(logits, requires_grad=True)
    total, weight = loss.sum_and_weight(logits, minidl.tensor(TARGET))
    (total * 3).backward()
    right, count = loss.right_answers(logits.detach(), minidl.tensor(TARGET))
    return total.item(), weight.item(), logits.grad.numpy(), right.item(), count.item()


def of_split_classes(group):
    classes = 12 // group.size
    own = slice(group.rank * classes, (group.rank + 1) * classes)
    return loss_and_gradient(nn.CrossEntropyLoss().over_classes(SplitClasses(group)), LOGITS[..., own])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_loss_gradient_and_answers_are_those_of_the_whole_logits(ranks):
    *numbers, gradient, right, count = (loss_and_gradient(nn.CrossEntropyLoss(), LOGITS)[i] for i in (0, 1, 2, 3, 4))
    found = launch(of_split_classes, ranks)
    for total, weight, _, *answers in found:
        np.testing.assert_allclose([total, weight], numbers, rtol=1e-12)
        assert answers == [right, count]
    joined = np.concatenate([part for _, _, part, *_ in found], -1)
    np.testing.assert_allclose(joined, gradient, rtol=1e-11, atol=1e-14)


def test_of_several_largest_logits_the_first_is_the_answer():
    def answers(group):
        own = slice(6 * group.rank, 6 * group.rank + 6)
        return SplitClasses(group).argmax(minidl.tensor(LOGITS[..., own])).numpy()

    for found in launch(answers, 2):
        np.testing.assert_array_equal(found, LOGITS.argmax(-1))


def test_huge_logits_do_not_overflow():
    def loss(group):
        logits = minidl.tensor(np.full((2, 2), 1e4 * (1 + group.rank)))
        return SplitClasses(group).cross_entropy_sum(logits, minidl.tensor([0, 3]), -100).item()

    whole = minidl.tensor(np.repeat([[1e4, 1e4, 2e4, 2e4]], 2, 0))
    expected = ops.cross_entropy_sum(whole, minidl.tensor([0, 3])).item()
    assert launch(loss, 2) == pytest.approx([expected] * 2, rel=1e-12)


def test_a_target_that_is_no_class_is_refused_on_every_rank():
    def refused(group):
        with pytest.raises(IndexError, match=r"cross_entropy: indices lie in \[3, 12\], the places in \[0, 12\)"):
            SplitClasses(group).cross_entropy_sum(minidl.zeros(2, 6), minidl.tensor([3, 12]), -100)
        return True

    assert launch(refused, 2) == [True, True]


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.NLLLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(minidl.ones(12))]
)
def test_a_loss_that_needs_all_classes_is_refused_at_the_door(loss):
    needs = f"{type(loss).__name__} needs whole outputs, but the model's last layer splits its classes over tensor=2"
    with pytest.raises(ValueError, match=needs):
        prepare(models.builder("gpt-tiny"), Plan(tensor=2), 4, loss=loss)


def test_where_no_classes_are_split_the_loss_is_the_users_own():
    loss = nn.MSELoss()
    assert loss_of_output(loss, [nn.Linear(2, 2)]) is loss
    whole = models.gpt(1, 8, 2, 12, 4)
    assert loss_of_output(loss, whole.blocks) is loss


@pytest.mark.parametrize("build", [models.gpt, models.bert], ids=lambda build: build.__name__)
@pytest.mark.parametrize("tied", [False, True])
def test_no_rank_ever_holds_the_whole_logits(build, tied):
    vocabulary = 7 * 4  # no other size is divisible by 7

    def model(mesh):
        sizes = dict(layers=2, hidden=16, heads=2, vocabulary=vocabulary, sequence=6, mesh=mesh, tied=tied)
        return build(**sizes)

    for ranks in (1, 2):
        profile = prepare(model, Plan(tensor=ranks), 8).profile
        of_blocks = (c for b in profile.blocks for c in (*b.forward, *b.backward, *b.infer))
        calls = [c for c in (*of_blocks, *profile.loss, *profile.score) if isinstance(c, KernelCall)]
        sizes = {n for call in calls for shape in call.shapes for n in shape}
        assert max(n for n in sizes if n % 7 == 0) == vocabulary // ranks


def test_on_meta_a_row_costs_three_numbers_whatever_the_vocabulary():
    for classes in (8, 80):
        group = Mesh({"tensor": 4}).group("tensor")
        logits = minidl.Tensor(MetaArray((6, classes), "float32"), requires_grad=True)
        with meta.record() as calls:
            total = SplitClasses(group).cross_entropy_sum(logits, minidl.Tensor(MetaArray((6,), "int64")), -100)
        sent = [c.nbytes for c in calls if not isinstance(c, KernelCall)]
        assert sent == [6 * 4, 6 * 2 * 4] and total.shape == ()
