"""The operations under the names that PyTorch has in torch.nn.functional."""

from minidl.ops import (
    conv2d,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    max_pool2d,
    relu,
    scaled_dot_product_attention,
    sigmoid,
    softmax,
    tanh,
)
