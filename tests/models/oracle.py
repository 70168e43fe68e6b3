"""Holding a model to a transcription of it in PyTorch: the same weights give the same output and the same gradients."""

import numpy as np

import minidl


def assert_equals_torch(torch, model, transcription, x, rtol=1e-9):
    """In float64, with random weights in place of the parameters that begin as zeros and ones.

    transcription(x, p): the output for the torch tensor x, p being the parameters by name.
    """
    generator = np.random.default_rng(0)
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.data = generator.uniform(-0.5, 0.5, parameter.shape)
    differentiable = x.dtype.kind == "f"
    ours_x = minidl.tensor(x, requires_grad=differentiable)
    ours = model(ours_x)
    weights = generator.standard_normal(ours.shape)
    ours.backward(minidl.tensor(weights))

    p = {name: torch.tensor(q.numpy(), requires_grad=True) for name, q in parameters.items()}
    theirs_x = torch.tensor(x, requires_grad=differentiable)
    theirs = transcription(theirs_x, p)
    theirs.backward(torch.tensor(weights))
    assert_close(ours.numpy(), theirs.detach().numpy(), rtol, "output")
    if differentiable:
        assert_close(ours_x.grad.numpy(), theirs_x.grad.numpy(), rtol, "gradient of the input")
    for name, q in parameters.items():
        assert_close(q.grad.numpy(), p[name].grad.numpy(), rtol, f"gradient of {name}")


def assert_close(ours, theirs, rtol, what):
    assert ours.shape == theirs.shape, what
    np.testing.assert_allclose(ours, theirs, rtol, atol=rtol * max(1, np.abs(theirs).max()), err_msg=what)
