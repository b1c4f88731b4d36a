"""Sixteen float32 as one value: a type of Numba's, so that a kernel computes with 16 channels in plain expressions.

    a, b = load(x, 0), load(x, 16)
    store(y, 0, 4 * a - b)

`x` and `y` are one-dimensional float32 arrays. +, - and * work on two vectors, * also on a number and a vector. A
product and a sum become one fused instruction where the machine has it. LLVM splits 16 lanes into what the machine's
registers hold.

Plain loops over channels are turned into such instructions too, by LLVM, but only where it can prove that nothing
overlaps; code that keeps dozens of vectors in registers at once is beyond it.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 16  # float32 in a vector: 512 bits

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FUSE = ("contract",)  # the one liberty that the kernels give to LLVM: see compiler.py


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_vector = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def load(typing_context, array, at):
    """The vector of array[at] to array[at + 15]."""

    def generate(context, builder, signature, arguments):
        vector = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        vector.align = 4  # a float32 may lie anywhere, not only at multiples of 64 bytes
        return vector

    return _vector(array, types.intp), generate


@intrinsic
def store(typing_context, array, at, vector):
    """array[at] to array[at + 15] = vector."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2])).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def store_past_caches(typing_context, array, at, vector):
    """As `store`, but straight to the memory: for results so large that they would only drive others from the caches.
    The vector's place must be a multiple of 64 bytes: the processor refuses others, and that ends the process."""

    def generate(context, builder, signature, arguments):
        instruction = builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]))
        instruction.align = 64
        yes = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", yes)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def bits_of(typing_context, number):
    """The vector whose lanes hold the bits of one int32: to be chosen among with `where_larger`, and stored."""

    def generate(context, builder, signature, arguments):
        return to_all_lanes(builder, builder.bitcast(arguments[0], ir.FloatType()))

    return _vector(types.int32), generate


@intrinsic
def where_larger(typing_context, value, than, chosen, other):
    """`chosen` in the lanes where `value` is larger than `than` or NaN, `other` in the rest."""

    def generate(context, builder, signature, arguments):
        value, than, chosen, other = arguments
        larger = builder.fcmp_ordered(">", value, than)
        return builder.select(builder.or_(larger, builder.fcmp_unordered("uno", value, value)), chosen, other)

    return _vector(_vector, _vector, _vector, _vector), generate


def to_all_lanes(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """The instructions that copy one float32 to all lanes."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one_lane = builder.insert_element(undefined, number, ir.IntType(32)(0))
    every_lane_takes_the_first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one_lane, undefined, every_lane_takes_the_first)


def _pointer(context, builder, kind, array, at):
    first = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [at]), _VECTOR.as_pointer())


def _define(operation, instruction: str) -> None:
    """vector `operation` vector."""

    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, arguments, keywords):
            if arguments == (_vector, _vector):
                return signature(_vector, _vector, _vector)
            return None

    @lower_builtin(operation, _vector, _vector)
    def generate(context, builder, signature, arguments):
        return getattr(builder, instruction)(*arguments, flags=_FUSE)


for _operation, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _define(_operation, _instruction)


@infer_global(operator.mul)
class _NumberTimesVector(AbstractTemplate):
    def generic(self, arguments, keywords):
        if len(arguments) == 2 and isinstance(arguments[0], types.Number) and arguments[1] == _vector:
            return signature(_vector, types.float32, _vector)  # Numba converts the number
        return None


@lower_builtin(operator.mul, types.float32, _vector)
def _multiply_all_lanes(context, builder, signature, arguments):
    return builder.fmul(to_all_lanes(builder, arguments[0]), arguments[1], flags=_FUSE)
