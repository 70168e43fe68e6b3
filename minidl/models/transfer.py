"""Transfer learning: a model that was trained on much is taken over for a task with little (Yosinski et al. 2014).

model = models.cnn(classes=5)
model.load_state_dict(minidl.load("trained.safetensors"))
model = replace_head(freeze(model, until=3), nn.Linear(256, 10))
optimizer = optim.SGD(discriminative_rates(model, lr=0.05, decay=0.5), momentum=0.9)
"""

from minidl import nn
from minidl.nn import Module, Sequential


def freeze(model: Sequential, until: int) -> Sequential:
    """Let training leave the parameters of the blocks before number `until` as they are; returns the model.

    They get no gradient, and where no block before them wants one either, backward ends above them. A batch
    normalisation among them keeps averaging what it sees in training, unless it is put into `eval()`.
    ValueError unless the model has so many blocks.
    """
    if not 0 <= until <= len(model):
        raise ValueError(f"freeze: until={until}, the model has {len(model)} blocks")
    for i, block in enumerate(model.blocks):
        for parameter in block.parameters():
            parameter.requires_grad_(i >= until)
    return model


def replace_head(model: Sequential, head: Module) -> Sequential:
    """A chain of the same blocks with `head` in place of the last one; the others are shared, not copied."""
    return nn.Sequential(*model.blocks[:-1], head)


def discriminative_rates(model: Sequential, lr: float, decay: float) -> list[dict]:
    """Parameter groups for an optimizer, one for each block that is trained: the lower, the slower it learns.

    The last such block has the learning rate `lr`, each one below it `decay` times that of the next (Howard and Ruder
    2018, "Universal Language Model Fine-tuning", section 3.2, where decay is 1 / 2.6).
    """
    trained = [[p for p in block.parameters() if p.requires_grad] for block in model.blocks]
    groups = [parameters for parameters in trained if parameters]
    return [{"params": group, "lr": lr * decay ** (len(groups) - 1 - i)} for i, group in enumerate(groups)]
