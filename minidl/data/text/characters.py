"""A token for each character."""

import json
from pathlib import Path

import numpy as np

from minidl import files, json_files
from minidl.data.text.tokens import known_tokens


class CharTokenizer:
    """Tokens are the characters of `text`, numbered in the order of their code points."""

    def __init__(self, text: str):
        self.characters = "".join(sorted(set(text)))
        self._tokens = {character: token for token, character in enumerate(self.characters)}

    def __len__(self) -> int:
        """The size of the vocabulary."""
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int64. ValueError for a character that is not in the vocabulary."""
        try:
            return np.array([self._tokens[character] for character in text], np.int64)
        except KeyError as error:
            raise ValueError(f"character {error} is not among the {len(self)} of the vocabulary") from None

    def decode(self, tokens: np.ndarray) -> str:
        """The text of a row of tokens. ValueError for one that is not in the vocabulary."""
        return "".join(self.characters[token] for token in known_tokens("CharTokenizer", tokens, len(self)))

    def save(self, path: str | Path) -> None:
        """Write a JSON file `{"characters": "…"}`, in which token i is character i."""
        files.write(path, json.dumps({"characters": self.characters}))

    @classmethod
    def load(cls, path: str | Path) -> "CharTokenizer":
        """Read a file that `save` has written. ValueError, which names it, for any other."""
        match json_files.read_json(path):
            case {"characters": str(characters)} if characters == "".join(sorted(set(characters))):
                return cls(characters)
        raise ValueError(f'{path} is no saved CharTokenizer: {{"characters": "…"}}, each once, by their code points')
