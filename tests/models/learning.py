"""Training on the digits, for the tests of the models."""

import numpy as np

import minidl
from minidl import data, nn, optim


def enlarged(dataset, times, border=0):
    """The images of a data set with each pixel repeated, and a border of zeros."""
    x = np.kron(dataset.x, np.ones((times, times), np.float32))
    return data.ArrayDataset(np.pad(x, ((0, 0), (0, 0), (border, border), (border, border))), dataset.y)


def fit(model, dataset, epochs, loss=None, lr=0.05, optimizer=None, batch_size=64):
    """Train `model` in place; SGD with momentum unless there is an optimizer. Returns the loss of the last batch."""
    optimizer = optimizer or optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loss = loss or nn.CrossEntropyLoss()
    model.train()
    for x, y in (batch for _ in range(epochs) for batch in loader(dataset, batch_size)):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
    return value.item()


def loader(dataset, batch_size):
    return data.DataLoader(dataset, batch_size, shuffle=True)


def accuracy(model, dataset):
    """The share of samples whose largest output is the right one."""
    model.eval()
    with minidl.no_grad():
        guess = model(minidl.tensor(dataset.x)).argmax(-1).numpy()
    return np.mean(guess == dataset.y)


def digits_accuracy(model, epochs, prepare=lambda dataset: dataset, **options):
    """Accuracy on the test digits after training on the others; both go through `prepare` first."""
    train, test = map(prepare, data.digits())
    fit(model, train, epochs, **options)
    return accuracy(model, test)
