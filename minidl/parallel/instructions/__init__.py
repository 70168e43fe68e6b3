"""The vocabulary of a Program: one step of one rank, as plain data; a docstring each. Buffers are what it is about."""

from minidl.parallel.instructions.buffers import BufferName
from minidl.parallel.instructions.communication import (
    BroadcastStatistics,
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
    SumParts,
)
from minidl.parallel.instructions.compute import (
    AddShare,
    EndEvaluation,
    LoadInput,
    LoadTarget,
    Loss,
    MeasureParameters,
    OptimizerStep,
    Score,
)
from minidl.parallel.instructions.custom import CustomInstruction
from minidl.parallel.instructions.instruction import Instruction, Touched
from minidl.parallel.instructions.passes import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    GivesGradients,
    Infer,
    Recompute,
    ThroughBuckets,
)
