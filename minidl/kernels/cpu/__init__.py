"""Kernels for the CPU, in NumPy, one family a file.

Arrays may be views and lie in memory in any order, results too. A kernel whose docstring says "in place" changes its
arguments; all others leave them alone.
"""

from minidl.kernels.cpu.arrays import *
from minidl.kernels.cpu.attention import *
from minidl.kernels.cpu.batch_norm import *
from minidl.kernels.cpu.convolution import *
from minidl.kernels.cpu.elementwise import *
from minidl.kernels.cpu.fused import *
from minidl.kernels.cpu.gelu import *
from minidl.kernels.cpu.indexing import *
from minidl.kernels.cpu.losses import *
from minidl.kernels.cpu.memory import keep_freed_memory
from minidl.kernels.cpu.normalization import *
from minidl.kernels.cpu.pooling import *
from minidl.kernels.cpu.products import *
from minidl.kernels.cpu.recurrent import *
from minidl.kernels.cpu.reduction import *
from minidl.kernels.cpu.updates import *

DEVICE = "cpu"
keep_freed_memory()
