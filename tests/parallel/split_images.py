"""What a chain of layers that is split over a group makes of images, beside what the whole chain makes of them."""

import numpy as np

import minidl
from minidl.nn.cut import join
from minidl.parallel import launch


def outcome(build, group, shape):
    """Output, input gradient, and this rank's parts of the gradients of the chain that `build(group)` makes."""
    with minidl.device("meta"):
        model = build(group)
    model.materialize(7, "model", np.float64)
    x = minidl.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    y = model(x)
    (y * minidl.tensor(np.random.default_rng(1).standard_normal(y.shape))).sum().backward()
    gradients = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        if p.summed_over:
            group.all_reduce(gradients[name])
    return y.numpy(), x.grad.numpy(), {name: (gradients[name], p.cut) for name, p in model.named_parameters()}


def assert_as_whole(ranks, *cases):
    """cases: (build, shape of the images). On all ranks the chain gives what it gives whole, and all gradients."""

    def work(group):
        group.axes = ("tensor",)  # as those of a mesh
        return [outcome(build, group, shape) for build, shape in cases]

    found = launch(work, ranks)
    for case, (build, shape) in enumerate(cases):
        y, grad, parameters = outcome(build, None, shape)
        for rank in range(ranks):
            ours, our_grad, _ = found[rank][case]
            np.testing.assert_allclose(ours, y, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(our_grad, grad, rtol=1e-10, atol=1e-10)
        assert all(found[rank][case][2].keys() == parameters.keys() for rank in range(ranks))
        for name, (expected, _) in parameters.items():
            joined = join((name, *found[rank][case][2][name]) for rank in range(ranks))[name]
            np.testing.assert_allclose(joined, expected, rtol=1e-10, atol=1e-10, err_msg=name)
