"""Kernels for an NVIDIA GPU, written in Python and compiled by Numba; or run by the emulator, where there is no GPU.

A family is one kernel and a table: elementwise.py is the place to begin, emulator.py the way to step through it.
Arrays may be views and lie in memory in any order. A kernel whose docstring says "in place" changes its arguments;
all others leave them alone. All that is launched runs later, in the order of one stream; `to_numpy` waits for it.
"""

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import *
from minidl.kernels.cuda.attention import *
from minidl.kernels.cuda.attention_grad import *
from minidl.kernels.cuda.batch_norm import *
from minidl.kernels.cuda.convolution import *
from minidl.kernels.cuda.device_memory import compute, device, pool
from minidl.kernels.cuda.division import *
from minidl.kernels.cuda.dropout import *
from minidl.kernels.cuda.elementwise import *
from minidl.kernels.cuda.indexing import *
from minidl.kernels.cuda.losses import *
from minidl.kernels.cuda.normalization import *
from minidl.kernels.cuda.pooling import *
from minidl.kernels.cuda.products import *
from minidl.kernels.cuda.recurrent import *
from minidl.kernels.cuda.reduction import *
from minidl.kernels.cuda.scan import *
from minidl.kernels.cuda.softmax import *
from minidl.kernels.cuda.sorting import *
from minidl.kernels.cuda.staging import is_pinned, pinned
from minidl.kernels.cuda.transfers import *
from minidl.kernels.cuda.updates import *

DEVICE = "cuda"
Event = device.Event
