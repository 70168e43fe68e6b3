"""Byte-pair encoding: tokens are the byte sequences that a text has most often."""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from minidl import files, json_files
from minidl.data.text.tokens import known_tokens

# GPT-2's pieces, in which merges stay: an English ending; letters, numbers or other signs, each with a space before
# them; white space. Only ASCII stands in the pattern, see _Kinds.
BYTES = [bytes([byte]) for byte in range(256)]
PIECE = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)


class BPETokenizer:
    """Byte-level byte-pair encoding, as GPT-2 has it: any text becomes tokens and comes back exactly.

    merges: pairs of byte sequences, in the order in which they are put together. vocabulary: the byte sequence of each
    token; by default the 256 bytes and then what each merge makes.

    Sources: R. Sennrich, B. Haddow, A. Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016,
    algorithm 1; A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.2.
    """

    def __init__(self, merges: Sequence[tuple[bytes, bytes]], vocabulary: Sequence[bytes] | None = None):
        self.merges = list(merges)
        made = [*BYTES, *(a + b for a, b in self.merges)]
        self.vocabulary = list(dict.fromkeys(made) if vocabulary is None else vocabulary)
        self._tokens = {piece: token for token, piece in enumerate(self.vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        lacking = [piece for piece in made if piece not in self._tokens]
        if lacking:
            raise ValueError(f"BPETokenizer: the vocabulary lacks {lacking[0]!r}, a byte or what a merge makes")
        self._known: dict[str, list[int]] = {}  # pieces encoded before

    def __len__(self) -> int:
        """The size of the vocabulary."""
        return len(self.vocabulary)

    @classmethod
    def train(cls, text: str, vocabulary_size: int) -> BPETokenizer:
        """Merge the pair that the text has most often, again and again, until there are `vocabulary_size` tokens.

        There are fewer if before that every pair left comes only once. Of pairs as frequent as each other the first by
        its bytes is merged.
        """
        if vocabulary_size < 256:
            raise ValueError(f"vocabulary_size={vocabulary_size} is less than 256, the bytes alone")
        counts = Counter(pieces(text))
        words = [[BYTES[byte] for byte in piece.encode()] for piece in counts]
        often = list(counts.values())
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        where: dict[tuple[bytes, bytes], set[int]] = defaultdict(set)  # the words in which a pair may be
        for i, word in enumerate(words):
            for pair in pairwise(word):
                pairs[pair] += often[i]
                where[pair].add(i)
        merges: list[tuple[bytes, bytes]] = []
        made = set(BYTES)  # two merges may make the same: ab + c, a + bc
        while len(made) < vocabulary_size:
            most = max(pairs.values(), default=0)
            if most < 2:
                break
            best = min(pair for pair, count in pairs.items() if count == most)
            merges.append(best)
            made.add(best[0] + best[1])
            for i in where.pop(best):
                for pair in pairwise(words[i]):
                    pairs[pair] -= often[i]
                words[i] = _merge(words[i], best)
                for pair in pairwise(words[i]):
                    pairs[pair] += often[i]
                    where[pair].add(i)
        return cls(merges)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64."""
        return np.fromiter(chain.from_iterable(map(self._encode_piece, pieces(text))), np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of a row of tokens. Where they begin or end within a character, � stands for it.

        ValueError for one that is not in the vocabulary.
        """
        known = known_tokens("BPETokenizer", tokens, len(self))
        return b"".join(self.vocabulary[token] for token in known).decode(errors="replace")

    def _encode_piece(self, piece: str) -> list[int]:
        if piece not in self._known:
            word = [BYTES[byte] for byte in piece.encode()]
            while len(word) > 1:
                first = min(pairwise(word), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
                if first not in self._ranks:
                    break
                word = _merge(word, first)
            self._known[piece] = [self._tokens[part] for part in word]
        return self._known[piece]

    def save(self, path: str | Path) -> None:
        """Write a JSON file {"vocab": {token as text: number}, "merges": ["first second", …]}.

        Bytes are written as GPT-2 writes them: those that are printable in Latin-1 as themselves, the others as the
        characters from Ā (256) on, so that a space is Ġ.
        """
        content = {
            "vocab": {_written(piece): token for token, piece in enumerate(self.vocabulary)},
            "merges": [f"{_written(a)} {_written(b)}" for a, b in self.merges],
        }
        files.write(path, json.dumps(content, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Read a file that `save` has written. ValueError, which names it, for any other."""
        content = json_files.read_json(path)
        if not isinstance(content, dict) or not {"vocab", "merges"} <= content.keys():
            raise ValueError(f"{path} is no saved BPETokenizer: it must have a vocab and merges")
        return cls._from_written(content["vocab"], content["merges"], f"{path}")

    @classmethod
    def load_gpt2(cls, vocabulary: str | Path, merges: str | Path) -> BPETokenizer:
        """Read GPT-2's two files, vocab.json and merges.txt (first named encoder.json and vocab.bpe).

        ValueError, which names them, for any others.
        """
        try:
            lines = Path(merges).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{merges} is no text in UTF-8: {error}") from None
        written = [line for line in lines if line and not line.startswith("#version")]
        return cls._from_written(json_files.read_json(vocabulary), written, f"{vocabulary} with {merges}")

    @classmethod
    def _from_written(cls, vocabulary: object, merges: object, source: str) -> BPETokenizer:
        """A tokenizer from what stands in the files `source`, whatever that is."""
        try:
            if not isinstance(vocabulary, dict) or not all(type(token) is int for token in vocabulary.values()):
                raise ValueError("its vocabulary must be a table of texts and whole numbers")
            if not isinstance(merges, list):
                raise ValueError("its merges must be a list")
            ordered = sorted(vocabulary, key=vocabulary.__getitem__)
            if [vocabulary[piece] for piece in ordered] != list(range(len(ordered))):
                raise ValueError(f"the tokens of a vocabulary must be numbered from 0 to {len(ordered) - 1}")
            return cls([_pair(merge) for merge in merges], [_read(piece) for piece in ordered])
        except ValueError as error:
            raise ValueError(f"{source} makes no BPETokenizer: {error}") from None


def pieces(text: str) -> Iterator[str]:
    """The pieces of a text within which bytes are merged; together they are the text."""
    kinds = text if text.isascii() else text.translate(_KINDS)
    return (text[match.start() : match.end()] for match in PIECE.finditer(kinds))


class _Kinds(dict):
    """Code point -> one of ASCII of the same kind, so that `re`, which knows no Unicode categories, finds pieces."""

    def __missing__(self, code: int) -> int:
        if code < 128:
            return code
        character = chr(code)
        category = unicodedata.category(character)[0]
        kind = "b" if category == "L" else "0" if category == "N" else "\t" if character.isspace() else "!"
        self[code] = ord(kind)  # no English ending has a b
        return self[code]


_KINDS = _Kinds()


def _merge(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The word with every `pair` in it put together, from left to right."""
    merged, i = [], 0
    while i < len(word):
        both = i + 1 < len(word) and (word[i], word[i + 1]) == pair
        merged.append(word[i] + word[i + 1] if both else word[i])
        i += 2 if both else 1
    return merged


def _byte_characters() -> list[str]:
    """How GPT-2 writes each byte."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)}


def _written(piece: bytes) -> str:
    return "".join(_CHARACTERS[byte] for byte in piece)


def _read(piece: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in piece)
    except KeyError as error:
        raise ValueError(f"{error} in the token {reprlib.repr(piece)} stands for no byte") from None


def _pair(merge: object) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else []
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"the merge {reprlib.repr(merge)} is not two tokens with a space between them")
    return _read(parts[0]), _read(parts[1])
