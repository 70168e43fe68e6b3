"""Text as tokens: characters, byte pairs, and the windows that a language model is trained on."""

from minidl.data.text.bpe import BPETokenizer
from minidl.data.text.characters import CharTokenizer
from minidl.data.text.text_dataset import TextDataset, coriolanus
