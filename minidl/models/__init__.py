"""The models that lessons, experiments and the simulator share, and builders of them by name.

Each is an nn.Sequential whose children are the blocks of the chain. It carries `example`: a function that gives, for a
batch size, input and target (x, y) on the current default device. One whose loss is not cross-entropy carries `loss`, a
function that makes it.
"""

from minidl.models.agent import agent
from minidl.models.alexnet import alexnet
from minidl.models.bert import bert
from minidl.models.builders import BUILDERS, builder
from minidl.models.cnn import cifar_cnn, cnn
from minidl.models.from_config import from_config
from minidl.models.gpt import gpt
from minidl.models.inception import inception
from minidl.models.lenet import lenet
from minidl.models.lstm import lstm_classifier, lstm_language_model
from minidl.models.mlp import mlp
from minidl.models.moe_gpt import moe_gpt
from minidl.models.resnet import resnet
from minidl.models.vae import vae
from minidl.models.vgg import vgg
