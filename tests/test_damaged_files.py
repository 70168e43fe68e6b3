"""Whatever happens to a file, it is read, or refused by its name."""

import gzip
import importlib
import json
import random
import struct
from contextlib import suppress
from dataclasses import asdict

import pytest

import minidl
from minidl import data
from minidl.monitor import Monitor
from minidl.trace import COMPUTE, Event, Trace
from simulator import Cluster
from simulator.cluster_file import CATALOG
from tests.simulator.hand_made import made_up

ROUNDS = 40
calibrate = importlib.import_module("simulator.calibrate")


def save_log(path):
    kind = path.suffix[1:]
    with Monitor(**{kind: path}, terminal=False) as monitor:
        for step in range(3):
            monitor.log(step, loss=0.5, **{"test, größe": 1e-9})


def load_log(path):
    with Monitor(**{path.suffix[1:]: path}, append=True, terminal=False) as monitor:
        monitor.log(1, loss=0.25)


def load_calibration(path):
    with suppress(ValueError):  # of which `calibration` makes a warning with the file's name
        calibrate._read(path)


def save_images(path):
    """The images; a label for each beside them."""
    header = struct.pack(">4B3i", 0, 0, 8, 3, 3, 28, 28)
    content = header + bytes(range(147)) * 16
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    for name, size in (("train-labels-idx1-ubyte", 3), ("t10k-labels-idx1-ubyte", 1)):
        (path.parent / name).write_bytes(struct.pack(">4Bi", 0, 0, 8, 1, size) + bytes(size))
    (path.parent / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">4B3i", 0, 0, 8, 3, 1, 28, 28) + bytes(784))


FILES = {  # name: what makes a good one, what reads it
    "trace.json": (Trace([Event(0, COMPUTE, "F0", 0.5, 1.0), Event(1, "copy", "é", 0.5, 2.0, 1)]).save, Trace.load),
    "characters.json": (data.CharTokenizer("aé\n").save, data.CharTokenizer.load),
    "bpe.json": (data.BPETokenizer.train("aaab aaab", 260).save, data.BPETokenizer.load),
    "state.safetensors": (lambda path: minidl.save({"a": minidl.ones(3), "b": {"c": [1, 2.5]}}, path), minidl.load),
    "flat.safetensors": (lambda path: minidl.save({"a": minidl.ones(3)}, path), minidl.load),
    "run.csv": (save_log, load_log),
    "run.jsonl": (save_log, load_log),
    "cluster.toml": (lambda path: path.write_bytes((CATALOG / "dgx-a100-80g.toml").read_bytes()), Cluster.load),
    "calibration.json": (lambda path: path.write_text(json.dumps(asdict(made_up()))), load_calibration),
    "train-images-idx3-ubyte": (save_images, lambda path: data.mnist(path.parent)),
    "train-images-idx3-ubyte.gz": (save_images, lambda path: data.mnist(path.parent)),
}


def damaged(whole, draw):
    """The content with a bit flipped, a byte replaced, a part cut out or doubled, or what was at the end gone."""
    a, b = sorted(draw.choices(range(len(whole)), k=2))
    return draw.choice([
        whole[:a] + bytes([whole[a] ^ 1 << draw.randrange(8)]) + whole[a + 1 :],
        whole[:a] + draw.choice([b"-", b"9", b"[", b'"', b"\n", b"\0", b"\xff", b"null", b"1e999"]) + whole[a + 1 :],
        whole[:a] + whole[b:],
        whole[:b] + whole[a:],
        whole[:a],
    ])  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused_by_its_name_in_one_sentence(tmp_path, name):
    make, read = FILES[name]
    path, draw = tmp_path / name, random.Random(name)
    make(path)
    whole = path.read_bytes()
    read(path)
    for _ in range(ROUNDS):
        path.write_bytes(damaged(whole, draw))
        try:
            read(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error) and "\n" not in str(error)
