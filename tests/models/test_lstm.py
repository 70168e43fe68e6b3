"""The networks of LSTM layers: they equal PyTorch's, read digits row by row, and continue a text."""

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.lstm import lstm_classifier, lstm_language_model
from minidl.parallel import Plan, train
from tests.models.learning import digits_accuracy
from tests.models.oracle import assert_equals_torch

pytestmark = pytest.mark.usefixtures("warm_workers")


def torch_lstm(torch, x, p, prefix, hidden):
    layer = torch.nn.LSTM(x.shape[-1], hidden, batch_first=True, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    return torch.func.functional_call(layer, {name: p[f"{prefix}.lstm.{name}"] for name in names}, (x,))[0]


def test_the_classifier_equals_its_transcription_in_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    model = lstm_classifier(inputs=5, steps=4, hidden=7, layers=2, classes=3)

    def transcription(x, p):
        x = torch_lstm(torch, x.flatten(1, 2), p, "1", 7)
        x = torch_lstm(torch, x, p, "2", 7)
        return torch.nn.functional.linear(x[:, -1], p["4.weight"], p["4.bias"])

    assert_equals_torch(torch, model, transcription, np.random.default_rng(0).standard_normal((3, 1, 4, 5)))


def test_the_language_model_equals_its_transcription_in_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    model = lstm_language_model(11, hidden=6, layers=2, sequence=5, dropout=0.0)

    def transcription(indices, p):
        x = torch_lstm(torch, p["0.weight"][indices], p, "2", 6)
        x = torch_lstm(torch, x, p, "4", 6)
        return torch.nn.functional.linear(x, p["6.weight"], p["6.bias"])

    assert_equals_torch(torch, model, transcription, np.random.default_rng(0).integers(11, size=(3, 5)))


def test_the_classifier_reads_the_digits_row_by_row():
    minidl.manual_seed(0)
    model = models.builder("lstm-digits")()
    adam = optim.Adam(model.parameters(), lr=0.01)
    assert digits_accuracy(model, 8, optimizer=adam) >= 0.93


def counted(samples, generator):
    """Texts (samples, 12) of tokens a…d; each is a run of one to three equal letters, then as many of the next one."""
    start, length = generator.integers(4, size=(samples, 1)), generator.integers(1, 4, size=(samples, 1))
    text = (start + np.arange(13) // length) % 4
    return text[:, :-1], text[:, 1:]


def test_the_language_model_counts_how_often_a_letter_comes_before_the_next():
    minidl.manual_seed(0)
    generator = np.random.default_rng(0)
    model = lstm_language_model(4, hidden=24, layers=2, sequence=12, dropout=0.0)
    optimizer, loss = optim.Adam(model.parameters(), lr=0.02), nn.CrossEntropyLoss()
    for _ in range(120):
        x, y = (minidl.tensor(part) for part in counted(32, generator))
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    x, y = counted(200, generator)
    with minidl.no_grad():
        right = model(minidl.tensor(x)).numpy().argmax(-1) == y
    assert right[:, 3:].mean() >= 0.97  # who sees only the last letter is right 3 times of 4 at best


@pytest.mark.parametrize("plan", [Plan(data=2, micro_batches=2), Plan(pipeline=2, micro_batches=2)], ids=str)
def test_a_language_model_trains_under_plans_as_on_one_worker(plan):
    dataset = data.ArrayDataset(*counted(40, np.random.default_rng(0)))

    def run(plan):
        return train(
            lambda mesh: lstm_language_model(4, 8, 2, 12, 0.2), dataset, plan, loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: optim.SGD(p, lr=0.5, momentum=0.9), batch_size=16, steps=6, dtype="float64",
            timeout=120,
        )  # fmt: skip

    got, expected = run(plan), run(Plan())
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    for name, array in expected.state_dict().items():
        np.testing.assert_allclose(got.state_dict()[name], array, rtol=1e-8, atol=1e-10, err_msg=name)
