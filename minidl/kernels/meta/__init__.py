"""Kernels that compute nothing: they give the shape of the result and record what the computation would cost.

Everything that prices a model reads these records; nothing else in the project knows how many FLOPs a layer has.
"""

from minidl.kernels.meta.arrays import *
from minidl.kernels.meta.attention import *
from minidl.kernels.meta.convolution import *
from minidl.kernels.meta.dropout import *
from minidl.kernels.meta.elementwise import *
from minidl.kernels.meta.indexing import *
from minidl.kernels.meta.losses import *
from minidl.kernels.meta.normalization import *
from minidl.kernels.meta.pooling import *
from minidl.kernels.meta.products import *
from minidl.kernels.meta.record import KernelCall, MetaArray, note, record
from minidl.kernels.meta.recurrent import *
from minidl.kernels.meta.reduction import *
from minidl.kernels.meta.softmax import *
from minidl.kernels.meta.updates import *

DEVICE = "meta"
