"""The optimizers that commands know by name: the default learning rate, and one with the rest of its settings."""

from collections.abc import Callable

from minidl import optim

OPTIMIZERS: dict[str, tuple[float, Callable[..., optim.Optimizer]]] = {
    "sgd": (0.1, lambda parameters, lr: optim.SGD(parameters, lr, momentum=0.9)),
    "adagrad": (0.02, optim.Adagrad),
    "adadelta": (1.0, optim.Adadelta),
    "rmsprop": (0.001, optim.RMSprop),
    "adam": (0.003, optim.Adam),
    "adamw": (0.003, optim.AdamW),
    "nadam": (0.003, optim.NAdam),
    "lion": (0.001, optim.Lion),
    "lars": (2.0, optim.LARS),
    "lamb": (0.02, optim.LAMB),
    "adafactor": (0.02, optim.Adafactor),
    "muon": (0.02, lambda parameters, lr: optim.Muon(parameters, lr, adjust_lr_fn="match_rms_adamw")),
}
