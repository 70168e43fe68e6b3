"""Every optimizer with options that reach each of its branches, and a parameter to try them on."""

from minidl import nn, optim

CASES = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "weight_decay": 0.05, "maximize": True}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.Adagrad, {"lr": 0.1}),
    (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.05, "initial_accumulator_value": 0.5}),
    (optim.Adadelta, {}),
    (optim.Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.05}),
    (optim.RMSprop, {"lr": 0.01}),
    (optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.05}),
    (optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "alpha": 0.9}),
    (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5, "eps": 1e-3}),
    (optim.Adam, {"lr": 0.01}),
    (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.8), "maximize": True}),
    (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "betas": (0.9, 0.8)}),
    (optim.NAdam, {"lr": 0.01}),
    (optim.NAdam, {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.01}),
    (optim.NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.Adafactor, {"lr": 0.1}),
    (optim.Adafactor, {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-3, 0.1), "d": 2.0, "weight_decay": 0.1}),
    (optim.Adafactor, {"lr": 0.1, "maximize": True}),
    (optim.Muon, {"lr": 0.1}),
    (
        optim.Muon,
        {"lr": 0.1, "weight_decay": 0.05, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
    ),
    (optim.Muon, {"lr": 0.01, "matrices": False}),
    (optim.Lion, {"lr": 0.01}),
    (optim.Lion, {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    (optim.LARS, {"lr": 1.0, "momentum": 0.0}),
    (optim.LARS, {"lr": 1.0, "weight_decay": 0.1, "trust_coefficient": 0.01}),
    (optim.LAMB, {"lr": 0.01}),
    (optim.LAMB, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
]


def identity(case):
    cls, options = case
    return f"{cls.__name__} {options}"


IDS = [identity(case) for case in CASES]


def parameter(values):
    p = nn.Parameter(values.shape, init=nn.init.constant(0), dtype=values.dtype)
    p.set_whole(values)
    return p
