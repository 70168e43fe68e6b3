"""A model of the user's own, file.py:build: trained, profiled, predicted, and one sentence for what is wrong."""

import json
import sys
from pathlib import Path

import pytest

from minidl.__main__ import main
from simulator.__main__ import main as simulate

pytestmark = pytest.mark.usefixtures("warm_workers")

NET = """
from minidl import data, nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

def whatever(*inputs, **options):
    return build()

def wide(width=128):
    return build()
"""
WHOLE = """
from dataclasses import dataclass
import numpy as np
from minidl import nn, ops
from beside import OUT

@dataclass
class Sums:
    '''Sequences of tokens, and their sums.'''
    tokens: np.ndarray

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        x = self.tokens[index]
        return x, x.sum(-1, keepdims=True).astype(np.float64)

class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)

class Distance(nn.Loss):
    def elements_and_weight(self, output, target):
        return ops.abs(output - target), float(output.shape[0])

def make(mesh):
    return nn.Sequential(nn.Embedding(9, 4 * mesh.size("data")), Mean(), nn.Linear(4 * mesh.size("data"), OUT))

def data():
    tokens = np.random.default_rng(0).integers(9, size=(48, 5))
    return Sums(tokens[:32]), Sums(tokens[32:])

def loss():
    return Distance()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current one, with the files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("net.py").write_text(NET)
    Path("whole.py").write_text(WHOLE)
    Path("beside.py").write_text("OUT = 1\n")
    yield tmp_path
    sys.modules.pop("beside", None)


def trained(*arguments):
    assert main(["train", "--json", "result.json", *arguments]) == 0
    return json.loads(Path("result.json").read_text())


@pytest.mark.parametrize("function", ["build", "whatever", "wide"])
def test_a_function_of_a_file_is_trained_on_the_digits_as_the_same_model_by_name_is(folder, function):
    own = trained("--model", f"net.py:{function}", "--steps", "3", "--data", "2")
    assert own["model"] == f"net.py:{function}" and own["test_accuracy"] > 0
    named = trained("--model", "mlp-digits", "--steps", "3")
    assert own["losses"] == pytest.approx(named["losses"], rel=1e-5)


def test_a_file_brings_its_data_its_loss_and_what_lies_beside_it_to_every_worker(folder, capsys):
    options = ["--model", "whole.py:make", "--steps", "6", "--batch-size", "8"]
    result = trained(*options, "--data", "2", "--pipeline", "2", "--micro-batches", "2")
    assert result["test_accuracy"] is None and result["losses"][0] > 10  # the sums are about 20
    assert result["tokens_per_second"] == pytest.approx(5 * result["samples_per_second"])
    printed = capsys.readouterr().out
    assert "samples/s, " in printed and "tokens/s" in printed and "accuracy" not in printed


def test_a_file_is_profiled_and_predicted_with_its_own_data_and_loss(folder, capsys):
    for name in (["whole.py:make"], ["--model", "whole.py:make"]):
        assert main(["profile", *name, "--batch", "40", "--repeats", "1"]) == 0  # more than there are samples
        printed = capsys.readouterr().out
        assert "whole.py:make, 40 samples" in printed and "40×5×4" in printed and "1 Mean" in printed
    assert simulate("predict whole.py:make --cluster tpu-v4 --data 2 --batch-size 8 --json p.json".split()) == 0
    document = json.loads(Path("p.json").read_text())
    assert document["assumptions"] | {"sequence": 5, "loss": "Distance"} == document["assumptions"]


def test_a_file_without_data_is_profiled_on_what_its_model_carries_else_on_digits(folder, capsys):
    Path("gpt.py").write_text("from minidl import models\nbuild = models.builder('gpt-tiny', layers=1)\n")
    assert main(["profile", "gpt.py:build", "--batch", "2", "--no-time"]) == 0
    assert main(["profile", "net.py:build", "--batch", "2", "--no-time"]) == 0
    printed = capsys.readouterr().out
    assert "2×128×256" in printed and "2×64" in printed
    assert simulate("predict gpt.py:build --cluster tpu-v4 --batch-size 8".split()) == 0
    assert "8 samples of 128 tokens" in capsys.readouterr().out


WRONG = {
    "gone.py:build": ("", "no file 'gone.py' for the model gone.py:build"),
    "net.py:gone": (NET, "net.py has no gone: it has build, whatever, wide"),
    "net.py": (NET, "'net.py' names no function of that file: write net.py:build"),
    "net.py:": (NET, "net.py has no name after its colon: it has build, whatever, wide"),
    "syntax.py:build": ("def build(:\n", "syntax.py, line 1: SyntaxError: invalid syntax"),
    "null.py:build": ("\0", "null.py: SyntaxError: source code string cannot contain null bytes"),
    "import.py:build": ("\nimport nothing_of_that_name", "import.py, line 2: ModuleNotFoundError: No module named"),
    "exit.py:build": ("raise SystemExit(3)", "exit.py, line 1: SystemExit: 3"),
    "raises.py:build": ("def build():\n    return 1 / 0\n", "raises.py, line 2: ZeroDivisionError: division by zero"),
    "text.py:build": ("def build():\n    return 'model'\n", "text.py:build returned a str, not a minidl.nn.Module"),
    "built.py:net": ("from minidl import nn\nnet = nn.ReLU()", "built.py: the model must be given as a builder"),
    "two.py:build": ("def build(a, b): pass", "two.py: build must take a mesh, or nothing: missing a required arg"),
    "forward.py:Net": (
        "from minidl import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.gone\n",
        "forward.py, line 4: AttributeError: 'Tensor' object has no attribute 'gone'"),
    "few.py:build": (
        "from minidl import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n",
        "few.py:build has 5 outputs, for the classes 0 to 4: the labels of the data go from 0 to 9"),
    "uint8.py:build": (
        f"{NET}\ndef data():\n    import numpy as np\n    x = np.zeros((9, 64), 'float32')\n"
        "    return (data_set := data_of(x, np.zeros(9, 'uint8'))), data_set\n"
        "from minidl.data import ArrayDataset as data_of\n",
        "uint8.py: what data() gives to train on: dtype uint8 is not supported: use float32, float64, int64"),
    "floats.py:build": (
        f"{NET}\ndef data():\n    import numpy as np\n    x = np.zeros((99, 64), 'float32')\n"
        "    return (data_set := data_of(x, np.zeros(99, 'float32'))), data_set\n"
        "from minidl.data import ArrayDataset as data_of\n", "not (64,); labels are integers (int64)"),
    "torch.py:build": (
        "class Net:\n    pass\nNet.__module__ = 'torch.nn'\nbuild = Net\n", "returned a torch.nn.Net, not a minidl"),
    "shape.py:build": (
        "from minidl import nn\ndef build():\n    return nn.Sequential(nn.Linear(3, 2))\n",
        "shape.py:build does not take the digits, (1, 1, 8, 8), and shape.py has no data(): linear: the input has"),
    "one.py:build": (f"{NET}\ndef data():\n    return 3\n", "one.py: data() gives a int, not a pair of data sets"),
    "list.py:build": (
        f"{NET}\ndef data():\n    return [1, 2], [3]\n", "list.py: what data() gives to train on, a list, does not"),
    "asks.py:build": (
        f"{NET}\ndef data(folder):\n    pass\n", "asks.py: data must be a function without arguments: missing a req"),
    "fails.py:build": (f"{NET}\ndef data():\n    open('gone')\n", "fails.py, line 14: FileNotFoundError: [Errno 2] No"),
    "sum.py:build": (f"{NET}\nloss = nn.MSELoss(reduction='sum')\n", "sum.py: the loss has reduction='sum'"),
    "function.py:build": (
        f"{NET}\ndef loss(output, target):\n    pass\n", "function.py: loss must be an nn.Loss, or a function without"),
    "number.py:build": (f"{NET}\nloss = 3\n", "number.py: loss must be an nn.Loss with sum_and_weight"),
}  # fmt: skip


@pytest.mark.parametrize("model", WRONG)
def test_what_is_wrong_with_a_file_is_one_sentence_and_exit_code_2(folder, capsys, model):
    text, reason = WRONG[model]
    if text:
        Path(model.rpartition(":")[0] or model).write_text(text)
    assert main(["train", "--steps", "1", "--model", model]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("minidl: ") and captured.err.count("\n") == 1
    assert reason in captured.err


LABELS = """
import numpy as np
from minidl import data, nn
x, y = np.zeros((64, 8), "float32"), np.arange(64) % 3
def build():
    return nn.Linear(8, 3)
def data():
    from minidl.data import ArrayDataset, Subset
    return {data}
loss = nn.CrossEntropyLoss({loss})
"""


@pytest.mark.parametrize(("data", "loss", "worst"), [
    ("ArrayDataset(x, y), ArrayDataset(x, y)", "", None),
    ("ArrayDataset(x, np.where(y, y, -100)), ArrayDataset(x, y)", "", None),
    ("ArrayDataset(x, np.where(y, y, 9)), ArrayDataset(x, y)", "ignore_index=9", None),
    ("ArrayDataset(x, np.eye(3, dtype='float32')[y]), ArrayDataset(x, np.eye(3, dtype='float32')[y])", "", None),
    ("Subset(ArrayDataset(x, y + 1), np.flatnonzero(y < 2)), ArrayDataset(x, y)", "", None),
    ("Subset(ArrayDataset(x, y + 1), np.arange(32)), ArrayDataset(x, y)", "", "1 to 3"),
    ("ArrayDataset(x, y), ArrayDataset(x, 2 * y)", "", "0 to 4"),
    ("ArrayDataset(x, y - 1), ArrayDataset(x, y)", "", "-1 to 1"),
])  # fmt: skip
def test_labels_that_are_none_of_the_models_classes_are_refused_and_no_others(folder, capsys, data, loss, worst):
    Path("labels.py").write_text(LABELS.format(data=data, loss=loss))
    code = main(["train", "--model", "labels.py:build", "--steps", "2", "--batch-size", "8"])
    said = capsys.readouterr().err
    assert code == (2 if worst else 0)
    refused = "labels.py:build has 3 outputs, for the classes 0 to 2: the labels of the data go from "
    assert (f"{refused}{worst}\n" in said) is bool(worst)


def test_labels_of_data_that_are_not_used_matter_to_nobody(folder, capsys):
    Path("ex.py").write_text(
        "import minidl\nfrom minidl import nn\nclass Net(nn.Linear):\n    def example(self, n):\n"
        "        return minidl.zeros((n, 7)), minidl.zeros((n,), dtype='int64')\ndef build():\n    return Net(7, 3)\n"
    )
    assert simulate("predict ex.py:build --cluster tpu-v4 --batch-size 8".split()) == 0


def test_profile_and_predict_refuse_a_wrong_file_and_what_has_no_use_as_train_does(folder, capsys):
    Path("raises.py").write_text(WRONG["raises.py:build"][0])
    tpu = ["--cluster", "tpu-v4", "--batch-size", "8"]
    for command, arguments, reason in (
        (main, ["profile", "raises.py:build"], "raises.py, line 2: ZeroDivisionError"),
        (simulate, ["predict", "raises.py:build", *tpu], "raises.py, line 2: ZeroDivisionError"),
        (
            simulate,
            ["predict", "net.py:build", "--layers", "3", *tpu],
            "net.py:build is built as its file says: no --l",
        ),
        (main, ["train", "--model", "net.py:build", "--folder", "."], "no --folder, no --download"),
        (main, ["profile"], "one of the arguments MODEL --model is required"),
        (main, ["profile", "lenet", "--model", "lenet"], "not allowed with"),
    ):
        assert command(arguments) == 2
        captured = capsys.readouterr()
        assert reason in captured.err and captured.err.count("\n") == 1 and captured.out == ""
