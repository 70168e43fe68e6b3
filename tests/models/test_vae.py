"""The variational auto-encoder: its loss, its noise, and what it learns of the digits."""

import numpy as np
import pytest

import minidl
from minidl import data, models, optim, random
from minidl.models.vae import Sample, VAELoss, generate, vae
from minidl.parallel import Plan, train
from tests.models.learning import fit

pytestmark = pytest.mark.usefixtures("warm_workers")

TRAIN, TEST = (data.ArrayDataset(part.x, part.x) for part in data.digits())


def test_the_loss_and_its_gradient_equal_pytorchs_distributions():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    generator = np.random.default_rng(0)
    output, images = generator.standard_normal((5, 9 + 4)), generator.random((5, 1, 3, 3))
    ours = minidl.tensor(output, requires_grad=True)
    loss = VAELoss(2)(ours, minidl.tensor(images))
    loss.backward()

    theirs = torch.tensor(output, requires_grad=True)
    logits, mean, log_variance = theirs.split([9, 2, 2], 1)
    D = torch.distributions
    pixels = D.Bernoulli(logits=logits, validate_args=False).log_prob(torch.tensor(images).flatten(1)).sum()
    divergence = D.kl_divergence(D.Normal(mean, (log_variance / 2).exp()), D.Normal(0.0, 1.0)).sum()
    expected = (divergence - pixels) / 5
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_a_model_equals_its_transcription_in_pytorch_when_both_see_the_same_noise():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    model = vae(size=3, hidden=7, latent=2)
    model.materialize(0, dtype="float64")
    x = np.random.default_rng(0).random((4, 1, 3, 3))
    minidl.manual_seed(1)
    model.loss()(model(minidl.tensor(x)), minidl.tensor(x)).backward()

    minidl.manual_seed(1)
    noise = torch.tensor(random.normal((4, 2)).astype(np.float64))
    p = {name: torch.tensor(q.numpy(), requires_grad=True) for name, q in model.named_parameters()}
    F, flat = torch.nn.functional, torch.tensor(x).flatten(1)
    encoded = F.linear(F.linear(flat, p["1.weight"], p["1.bias"]).tanh(), p["3.weight"], p["3.bias"])
    mean, log_variance = encoded.chunk(2, 1)
    z = mean + (log_variance / 2).exp() * noise
    hidden = F.linear(z, p["5.hidden.weight"], p["5.hidden.bias"]).tanh()
    logits = F.linear(hidden, p["5.pixels.weight"], p["5.pixels.bias"])
    pixels = F.binary_cross_entropy_with_logits(logits, flat, reduction="sum")
    loss = (pixels - 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()) / 4
    loss.backward()
    for name, q in model.named_parameters():
        np.testing.assert_allclose(q.grad.numpy(), p[name].grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_samples_have_the_mean_and_the_variance_asked_for_and_outside_of_training_are_the_mean():
    block = Sample(1)
    x = minidl.tensor(np.tile([[3.0, 2 * np.log(0.5)]], (20_000, 1)))
    z = block(x).numpy()[:, 0]
    assert z.mean() == pytest.approx(3, abs=0.02) and z.std() == pytest.approx(0.5, abs=0.02)
    assert np.all(block.eval()(x).numpy()[:, 0] == 3)


def test_keyed_noise_is_normal_and_belongs_to_the_sample():
    samples = np.arange(2000)
    with random.scope(random.Scope(0, 0, samples)):
        noise, again = random.normal((2000, 10)), random.normal((2000, 10))
    with random.scope(random.Scope(0, 0, samples[500:])):
        np.testing.assert_array_equal(random.normal((1500, 10)), noise[500:])
    assert noise.dtype == np.float32 and np.abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(1, abs=0.02)
    assert (noise**4).mean() == pytest.approx(3, abs=0.15)  # as of a normal distribution
    assert np.abs((noise * again).mean()) < 0.02


def test_on_meta_no_noise_is_drawn():
    minidl.manual_seed(0)
    with minidl.device("meta"):
        assert minidl.randn_like(minidl.zeros(2, 3)).shape == (2, 3)
    after = minidl.randn(4).numpy()
    minidl.manual_seed(0)
    np.testing.assert_array_equal(minidl.randn(4).numpy(), after)


def test_a_vae_codes_the_digits_in_fewer_nats_than_pixels_that_know_nothing_of_each_other():
    share = TRAIN.x.mean(0).clip(1e-6, 1 - 1e-6)
    alone = -(TEST.x * np.log(share) + (1 - TEST.x) * np.log(1 - share)).sum((1, 2, 3)).mean()
    minidl.manual_seed(0)
    model = models.builder("vae-digits")()
    fit(model, TRAIN, 15, model.loss(), optimizer=optim.Adam(model.parameters(), lr=0.003))
    with minidl.no_grad():
        bound = model.loss()(model(minidl.tensor(TEST.x)), minidl.tensor(TEST.x)).item()
        drawn = generate(model, minidl.randn(500, 8)).numpy()
    assert alone == pytest.approx(27.3, abs=0.1)
    assert bound < 25.9  # a decoder that learns nothing from the encoder stays at 27.4
    assert np.abs(drawn.mean(0) - TEST.x.mean(0).ravel()).max() < 0.15  # what it makes up looks like digits on average


@pytest.mark.parametrize("plan", [Plan(data=2, micro_batches=2), Plan(pipeline=3, micro_batches=2)], ids=str)
def test_a_vae_trains_under_plans_as_on_one_worker_its_noise_included(plan):
    model = models.builder("vae-digits")()

    def run(plan):
        return train(
            models.builder("vae-digits"), TRAIN, plan, optimizer=lambda p: optim.SGD(p, lr=0.01), loss=model.loss(),
            batch_size=64, steps=5, dtype="float64", timeout=120,
        )  # fmt: skip

    got, expected = run(plan), run(Plan())
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    for name, array in got.state_dict().items():
        np.testing.assert_allclose(array, expected.state_dict()[name], rtol=1e-8, atol=1e-10, err_msg=name)
