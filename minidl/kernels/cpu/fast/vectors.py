"""Sixteen float32 numbers that compiled code handles as one value: a vector register, spelled out.

LLVM turns plain loops into vector code only where it can prove that no two arrays overlap, and it gives up when a loop
writes to several rows. With vectors nothing is left to prove: `load` and `store` move 16 neighbours of a C-contiguous
array, + - * work on all of them at once, `fill` repeats one number. A processor with shorter registers takes several.

    for i in range(0, x.size, WIDTH):
        store(y, i, load(x, i) * fill(a) + load(y, i))
"""

import operator

from llvmlite import ir
from numba import TypingError, types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16
REGISTER = ir.VectorType(ir.FloatType(), WIDTH)
FLAGS = ("contract", "nsz")  # a * b + c may be rounded once


class Vector(types.Type):
    """The type, to Numba, of 16 numbers."""

    def __init__(self):
        super().__init__("Vector")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How the compiler holds them: as one vector of LLVM's."""

    def __init__(self, manager, kind):
        super().__init__(manager, kind, REGISTER)


def _pointer(context, builder, signature, arguments):
    """To the element number arguments[1] of the flattened array arguments[0]."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), REGISTER.as_pointer())


def _splat(builder, number):
    undefined = ir.Constant(REGISTER, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _check(array):
    if array.layout != "C" or array.dtype != types.float32:
        raise TypingError(f"vectors need a C-contiguous array of float32, not {array}")


@intrinsic
def load(typing, array, start):
    """The 16 numbers from `start` on, counted in the flattened array. There is no check of bounds."""
    _check(array)

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature, arguments), align=4)

    return vector(array, types.intp), generate


@intrinsic
def store(typing, array, start, value):
    """Write 16 numbers into the flattened array from `start` on. There is no check of bounds."""
    _check(array)

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _pointer(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def fill(typing, number):
    """16 times the same number."""

    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return vector(types.float32), generate


@intrinsic
def repeat(typing, array, place):
    """16 times the number at `place` of the flattened array. There is no check of bounds."""
    _check(array)

    def generate(context, builder, signature, arguments):
        memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return _splat(builder, builder.load(builder.gep(memory, [arguments[1]])))

    return vector(array, types.intp), generate


def _define(operation, instruction: str):
    """Let `operation`, + say, mean LLVM's `instruction` for two vectors."""

    @intrinsic
    def apply(typing, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=FLAGS)

        return vector(vector, vector), generate

    @overload(operation, inline="always")
    def both(a, b):
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: apply(a, b)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
