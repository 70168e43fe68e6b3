"""The variational auto-encoder (Kingma and Welling 2014, "Auto-Encoding Variational Bayes")."""

from functools import partial

from minidl import nn, ops
from minidl.creation import randn_like
from minidl.models.examples import images
from minidl.tensor import Tensor


class Sample(nn.Module):
    """Mean and log variance (batch, 2 * latent) -> (batch, 3 * latent): a sample z before them (section 2.4).

    z = mean + standard deviation * noise, so that gradients reach both; outside of training it is the mean.
    """

    def __init__(self, latent: int):
        self.latent = latent

    def forward(self, x):
        mean, log_variance = ops.split(x, self.latent, 1)
        z = mean + ops.exp(log_variance * 0.5) * randn_like(mean) if self.training else mean
        return ops.cat([z, x], 1)

    def extra_repr(self):
        return str(self.latent)


class Decoder(nn.Module):
    """(batch, 3 * latent) -> (batch, pixels + 2 * latent): z decoded to logits, mean and log variance as they are."""

    def __init__(self, latent: int, hidden: int, pixels: int):
        self.latent = latent
        self.hidden, self.pixels = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)

    def forward(self, x):
        z, distribution = ops.split(x, [self.latent, 2 * self.latent], 1)
        return ops.cat([self.decode(z), distribution], 1)

    def decode(self, z: Tensor) -> Tensor:
        """Logits (batch, pixels) of the image of z (batch, latent)."""
        return self.pixels(ops.tanh(self.hidden(z)))


class VAELoss(nn.Loss):
    """The negative of the evidence lower bound, in nats an image: the pixels' cost given z, plus KL(q(z|x) || p(z)).

    Output: (batch, pixels + 2 * latent), logits, mean and log variance; target: the images (batch, …), pixels from 0 to
    1. The divergence of the normal q from the standard normal p is in closed form (appendix B). Weight: one an image.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.latent = latent

    def sum_and_weight(self, output, target):
        image = target.flatten(1)
        logits, mean, log_variance = ops.split(output, [image.shape[1], self.latent, self.latent], 1)
        pixels = ops.softplus(logits) - image * logits  # the cross-entropy of sigmoid(logits)
        divergence = ops.exp(log_variance) + mean * mean - 1 - log_variance
        return pixels.sum() + divergence.sum() / 2, float(image.shape[0])


def vae(size: int = 28, hidden: int = 500, latent: int = 20, mesh=None) -> nn.Sequential:
    """Encoder, sample, decoder for images (batch, 1, size, size): one hidden layer on each side (appendix C).

    Mean and log variance travel with the sample to the end of the chain, where VAELoss needs them; the model carries
    that loss, and its target is its input. It is not split over a mesh.
    """
    pixels = size * size
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, hidden),
        nn.Tanh(),
        nn.Linear(hidden, 2 * latent),
        Sample(latent),
        Decoder(latent, hidden, pixels),
    )
    model.example, model.loss = partial(_example, images((1, size, size), 1)), partial(VAELoss, latent)
    return model


def _example(image, batch):
    x, _ = image(batch)
    return x, x


def generate(model: nn.Sequential, z: Tensor) -> Tensor:
    """The images (batch, pixels), pixels from 0 to 1, that a trained `vae` makes of z (batch, latent)."""
    return ops.sigmoid(model[-1].decode(z))
