"""Tokenizers bring any text back exactly, and merge what the definition says; windows are shifted by one token."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import data, nn, optim
from minidl.data.text import bpe
from minidl.data.text.bpe import pieces
from minidl.parallel import Plan, train

pytestmark = pytest.mark.usefixtures("warm_workers")

TEXT = data.coriolanus()
BPE = data.BPETokenizer.train(TEXT, 400)


def test_the_text_is_the_beginning_of_coriolanus():
    assert TEXT.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n") and TEXT.isascii()
    assert len(TEXT) == 31742 and TEXT.count("\nMARCIUS:\n") == 40 and TEXT.endswith("In praises sauced with lies.\n")


@given(st.text())
def test_characters_come_back(text):
    tokenizer = data.CharTokenizer(text)
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int64 and len(tokenizer) == len(set(text)) and tokenizer.decode(tokens) == text


def test_a_character_tokenizer_is_saved_and_names_what_it_does_not_know(tmp_path):
    tokenizer = data.CharTokenizer("naïve 文\n")
    tokenizer.save(tmp_path / "tokens.json")
    assert json.loads((tmp_path / "tokens.json").read_text())["characters"] == "\n aenvï文"
    again = data.CharTokenizer.load(tmp_path / "tokens.json")
    assert again.decode(again.encode("文ïn")) == "文ïn"
    with pytest.raises(ValueError, match="character 'z' is not among the 8 of the vocabulary"):
        again.encode("nz")


@given(st.text())
def test_byte_pairs_bring_any_text_back(text):
    tokens = BPE.encode(text)
    assert tokens.dtype == np.int64 and BPE.decode(tokens) == text
    assert len(tokens) <= len(text.encode()) and (tokens < len(BPE)).all()


@given(st.text(alphabet="ab c'st1.é²\u00a0\u3000\n\t文_"))
def test_pieces_are_those_of_gpt2s_pattern(text):
    # What \p{L}, \p{N} and \s are among these characters.
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?[abcsté文]+| ?[1²]+| ?[^\s1²abcsté文]+|\s+(?!\S)|\s+"
    assert list(pieces(text)) == re.findall(pattern, text)


def naive_merges(text, count):
    """Algorithm 1 of Sennrich, Haddow and Birch as it stands there: all pairs counted anew for each merge."""
    words = Counter(tuple(bytes([b]) for b in piece.encode()) for piece in pieces(text))
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, often in words.items():
            for pair in pairwise(word):
                pairs[pair] += often
        most = max(pairs.values(), default=0)
        if most < 2:
            break
        best = min(pair for pair in pairs if pairs[pair] == most)
        merges.append(best)
        renewed = Counter()
        for word, often in words.items():
            parts, rest = [], list(word)
            while rest:
                take = 2 if tuple(rest[:2]) == best else 1
                parts.append(b"".join(rest[:take]))
                rest = rest[take:]
            renewed[tuple(parts)] += often
        words = renewed
    return merges


@given(st.text(alphabet="abc é\n", max_size=60), st.integers(0, 12))
def test_training_merges_the_most_frequent_pair_again_and_again(text, count):
    trained = data.BPETokenizer.train(text, 256 + count)
    assert trained.merges == naive_merges(text, len(trained.merges))
    assert len(trained) <= 256 + count


def test_training_on_a_play_finds_its_words():
    assert len(BPE) == 400 and BPE.merges == naive_merges(TEXT, 144)
    assert {b" the", b" you", b"IUS"} <= set(BPE.vocabulary)
    assert len(BPE.encode(TEXT)) < 0.6 * len(TEXT)
    with pytest.raises(ValueError, match="vocabulary_size=255 is less than 256"):
        data.BPETokenizer.train(TEXT, 255)


def test_encoding_applies_the_merges_in_their_order():
    tokenizer = data.BPETokenizer([(b"a", b"b"), (b"c", b"d"), (b"b", b"c"), (b"ab", b"cd"), (b"x", b"x")])
    assert tokenizer.encode("abcd").tolist() == [259]
    assert tokenizer.encode("bcd").tolist() == [98, 257]  # cd comes before bc
    assert tokenizer.encode("xxxxx").tolist() == [260, 260, 120]
    assert tokenizer.decode([259, 98]) == "abcdb" and tokenizer.decode([0xC3]) == "�"


def test_byte_pairs_are_saved_and_read_again(tmp_path):
    BPE.save(tmp_path / "bpe.json")
    content = json.loads((tmp_path / "bpe.json").read_text(encoding="utf-8"))
    assert content["vocab"]["Ġthe"] == BPE.vocabulary.index(b" the") and content["merges"][0] in ("e Ġ", "Ġ t")
    again = data.BPETokenizer.load(tmp_path / "bpe.json")
    assert again.merges == BPE.merges and again.vocabulary == BPE.vocabulary


def test_gpt2s_files_are_read_with_its_numbers(tmp_path):
    # GPT-2's vocabulary begins with the printable bytes in order: "!" is 0, "A" 32; then the others, a space being 220.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    written = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    vocabulary = {token: i for i, token in enumerate([*written, "Ġt", "he", "Ġthe", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\n", encoding="utf-8")
    tokenizer = data.BPETokenizer.load_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert tokenizer.encode("A the!").tolist() == [32, 258, 0] and vocabulary["Ġ"] == 220
    assert tokenizer.decode([259]) == "<|endoftext|>" and tokenizer.decode(tokenizer.encode("ÿ 文")) == "ÿ 文"
    vocabulary.pop("A")
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(ValueError, match="must be numbered from 0 to 258"):
        data.BPETokenizer.load_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(ValueError, match="lacks b'ab', a byte or what a merge makes"):
        data.BPETokenizer([(b"a", b"b")], BPE.vocabulary[:256])


@given(st.integers(2, 40), st.integers(1, 10), st.integers(1, 12), st.data())
def test_windows_are_the_text_and_the_text_one_token_later(length, sequence, stride, draw):
    tokens = np.arange(length, dtype=np.uint16)
    if length <= sequence:
        with pytest.raises(ValueError, match=f"sequence={sequence} needs {sequence + 1} tokens, there are {length}"):
            data.TextDataset(tokens, sequence, stride)
        return
    windows = data.TextDataset(tokens, sequence, stride)
    starts = list(range(0, length - sequence, stride))
    assert len(windows) == len(starts)
    asked = draw.draw(st.lists(st.integers(-len(starts), len(starts) - 1), min_size=1))
    x, y = windows[np.array(asked)]
    assert x.dtype == y.dtype == np.int64
    assert x.tolist() == [list(range(starts[i], starts[i] + sequence)) for i in asked] and (y == x + 1).all()
    assert windows[asked[0]][0].tolist() == x[0].tolist()
    with pytest.raises(IndexError, match=f"in {len(starts)} windows"):
        windows[len(starts)]


@pytest.mark.parametrize("tokenizer", [BPE, data.CharTokenizer("abc")], ids=["BPE", "characters"])
def test_what_is_no_row_of_known_tokens_is_not_decoded(tokenizer):
    size = len(tokenizer)
    for wrong in (-1, size, 10**18):
        with pytest.raises(ValueError, match=f"Tokenizer: token {wrong} is not among the {size} of the vocabulary"):
            tokenizer.decode(np.array([0, wrong]))
    ones = minidl.ones(2)
    for wrong in ([0.0, 1.0], [True], ones, ones.bool(), 5, [[0]], ["a"], [10**30], None):
        with pytest.raises(
            ValueError, match="Tokenizer: tokens must be a row of integers, not .*: encode a text first"
        ):
            tokenizer.decode(wrong)
    assert tokenizer.decode([]) == "" and tokenizer.decode(minidl.tensor([0, 1])) == tokenizer.decode([0, 1]) != ""


GOOD = {
    data.BPETokenizer: {"vocab": {token: i for i, token in enumerate(bpe._CHARACTERS)}, "merges": []},
    data.CharTokenizer: {"characters": "abc"},
}
DAMAGED = [
    *[(cls, text) for cls in GOOD for text in ("", "{}", "null", "3", '["a"]', '{"vo', "[" * 100_000, "\udcff")],
    *[(data.CharTokenizer, {"characters": wrong}) for wrong in (5, None, ["ab"], "ba", "aa")],
    *[(data.BPETokenizer, {"vocab": wrong, "merges": []}) for wrong in (5, [], {}, {"a": "b"}, {"a": 1.0}, {"Ղ": 0})],
    (data.BPETokenizer, GOOD[data.BPETokenizer] | {"vocab": GOOD[data.BPETokenizer]["vocab"] | {'"': True}}),
    *[
        (data.BPETokenizer, GOOD[data.BPETokenizer] | {"merges": wrong})
        for wrong in (5, [5], ["a"], ["a b c"], ["a  "], ["a Ղ"], ["a b"], {"a": "b"})
    ],
]


@pytest.mark.parametrize(("cls", "content"), DAMAGED, ids=lambda x: str(x)[-40:])
def test_a_damaged_tokenizer_is_one_sentence_with_the_files_name(tmp_path, cls, content):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(GOOD[cls]), encoding="utf-8")
    assert len(cls.load(path)) == len(GOOD[cls].get("vocab", "abc"))
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=f"^{path} ") as caught:
        cls.load(path)
    assert "\n" not in str(caught.value)


def test_of_gpt2s_files_the_damaged_one_is_named(tmp_path):
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    for content, rules, named in (("[]", "", vocabulary), ("{", "", vocabulary), ("{}", "a b c", merges)):
        vocabulary.write_text(content)
        merges.write_text(rules)
        with pytest.raises(ValueError, match=str(named)):
            data.BPETokenizer.load_gpt2(vocabulary, merges)
    merges.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="merges.txt is no text in UTF-8"):
        data.BPETokenizer.load_gpt2(vocabulary, merges)


def test_windows_do_not_overlap_by_default_and_refuse_what_is_no_row_of_tokens():
    windows = data.TextDataset(np.arange(10), 3)
    assert windows[1][0].tolist() == [3, 4, 5] and len(windows) == 3
    for wrong in (np.zeros(5), np.zeros((5, 2), int)):
        with pytest.raises(ValueError, match="must be a row of integers, not .*: encode a text first"):
            data.TextDataset(wrong, 2)
    with pytest.raises(ValueError, match="both must be at least 1"):
        data.TextDataset(np.arange(5), 2, 0)


def test_a_bigram_model_learns_the_play_from_its_windows():
    tokenizer = data.CharTokenizer(TEXT)
    tokens = tokenizer.encode(TEXT)
    frequencies = np.bincount(tokens) / len(tokens)
    without_context = -(frequencies * np.log(frequencies)).sum()

    def build(mesh):
        return nn.Sequential(nn.Embedding(len(tokenizer), 32), nn.Linear(32, len(tokenizer)))

    run = train(
        build, data.TextDataset(tokens, 64), Plan(), optimizer=lambda p: optim.Adam(p, lr=0.02),
        loss=nn.CrossEntropyLoss(), batch_size=32, steps=60,
    )  # fmt: skip
    assert run.losses[-1] < 0.85 * without_context

    x, y = next(iter(data.DataLoader(data.TextDataset(tokens, 64), 8, shuffle=True)))
    assert x.shape == y.shape == (8, 64) and x.dtype == minidl.int64
