"""The vocabulary of a Program: one step of one rank, as plain data; a docstring each, and the two lanes."""

from minidl.parallel.instructions.communication import (
    GatherParameters,
    RecvActivation,
    RecvGradient,
    ReduceGradients,
    ReduceLoss,
    ReduceNorm,
    ReduceParameterNorms,
    ReduceScatterGradients,
    SendActivation,
    SendGradient,
)
from minidl.parallel.instructions.compute import (
    Backward,
    EndEvaluation,
    Forward,
    Infer,
    LoadInput,
    LoadTarget,
    Loss,
    MeasureParameters,
    OptimizerStep,
    Score,
)
from minidl.parallel.instructions.instruction import Buffer, Instruction
from minidl.trace import COMMUNICATION, COMPUTE
