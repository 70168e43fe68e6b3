"""Kernels for the CPU, on two floors: plain NumPy here, one family a file; what makes large arrays quick in `fast/`.

Arrays may be views and lie in memory in any order, results too, and results may be views of what was given where a
docstring says so. A kernel whose docstring says "in place" changes its arguments; all others leave them alone. Results
have the dtype of the first array, where a docstring says no other thing.
"""

from minidl.kernels.cpu.arrays import *
from minidl.kernels.cpu.attention import *
from minidl.kernels.cpu.batch_norm import *
from minidl.kernels.cpu.convolution import *
from minidl.kernels.cpu.dropout import *
from minidl.kernels.cpu.elementwise import *
from minidl.kernels.cpu.fast.freed_memory import keep_freed_memory
from minidl.kernels.cpu.gelu import *
from minidl.kernels.cpu.indexing import *
from minidl.kernels.cpu.losses import *
from minidl.kernels.cpu.normalization import *
from minidl.kernels.cpu.pooling import *
from minidl.kernels.cpu.products import *
from minidl.kernels.cpu.recurrent import *
from minidl.kernels.cpu.reduction import *
from minidl.kernels.cpu.softmax import *
from minidl.kernels.cpu.updates import *

DEVICE = "cpu"
keep_freed_memory()
