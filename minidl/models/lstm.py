"""Networks of LSTM layers (Hochreiter and Schmidhuber 1997): a classifier of sequences and a language model."""

from minidl import nn
from minidl.models.examples import images, tokens


class LSTMLayer(nn.Module):
    """One layer of LSTM as a block: (batch, time, inputs) -> its outputs (batch, time, hidden); it begins at zero."""

    def __init__(self, inputs: int, hidden: int):
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x):
        y, _ = self.lstm(x)
        return y


class Last(nn.Module):
    """What comes last in time: (batch, time, features) -> (batch, features)."""

    def forward(self, x):
        return x[:, -1]


def lstm_classifier(
    inputs: int = 28, steps: int = 28, hidden: int = 128, layers: int = 1, classes: int = 10, mesh=None
) -> nn.Sequential:
    """Reads an image (batch, 1, steps, inputs) row by row and classifies it by the last output.

    It is not split over a mesh.
    """
    widths = (inputs,) + (hidden,) * layers
    model = nn.Sequential(
        nn.Flatten(1, 2),  # (batch, steps, inputs)
        *(LSTMLayer(widths[i], widths[i + 1]) for i in range(layers)),
        Last(),
        nn.Linear(hidden, classes),
    )
    model.example = images((1, steps, inputs), classes)
    return model


def lstm_language_model(
    vocabulary: int = 10000, hidden: int = 650, layers: int = 2, sequence: int = 35, dropout: float = 0.5, mesh=None
) -> nn.Sequential:
    """Embedding, LSTM layers, logits of the next token: (batch, sequence) -> (batch, sequence, vocabulary).

    Dropout acts between layers, not along time (Zaremba, Sutskever and Vinyals 2014, "Recurrent Neural Network
    Regularization", figure 2; the defaults are its medium network). Each text begins from a state of zeros, where the
    paper goes on from the text before. It is not split over a mesh.
    """
    blocks: list[nn.Module] = [nn.Embedding(vocabulary, hidden), nn.Dropout(dropout)]
    for _ in range(layers):
        blocks += [LSTMLayer(hidden, hidden), nn.Dropout(dropout)]
    model = nn.Sequential(*blocks, nn.Linear(hidden, vocabulary))
    model.example = tokens(sequence, vocabulary)
    return model
