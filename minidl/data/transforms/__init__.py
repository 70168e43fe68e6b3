"""Transforms of samples: functions of (x, generator), to be put over a data set by `TransformedDataset`.

x is a NumPy array; images are (..., channels, height, width), floats in [0, 1] where it matters. A transform that draws
from the generator says `random = True` and treats everything it is given alike, as one sample; one that does not
(`random = False`) takes a sample or any batch of them. Without a generator the default one is drawn from, which
`minidl.manual_seed` starts. Names and meanings are torchvision's where it has the transform.
"""

from minidl.data.transforms.color import ColorJitter
from minidl.data.transforms.compose import Compose
from minidl.data.transforms.crop import CenterCrop, RandomCrop
from minidl.data.transforms.cutout import Cutout
from minidl.data.transforms.flip import RandomHorizontalFlip, RandomVerticalFlip
from minidl.data.transforms.missing import FillMissing, drop_missing
from minidl.data.transforms.mixup import Mixup
from minidl.data.transforms.normalize import Normalize, Standardize, ToFloat
from minidl.data.transforms.rotation import RandomRotation, rotate
