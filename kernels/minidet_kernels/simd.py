"""The tile: the one piece of machine-near code, on which every fast convolution stands.

A processor core with AVX-512 has 32 registers of 16 float32 each, and multiplies and adds 2 x 16 of them in every
cycle, if the numbers are in registers. Loading is slower than that, so each number loaded must be used several times. A
tile does this: it keeps 8 rows of the result in registers (8 or 16 of them), and for every step of a long sum loads one
vector of b, or two, and 8 single numbers of a, one a row, and multiplies each with each:

                       b   [ 16 lanes | 16 lanes ]          2 loads
             a row 0   x   [   sum    |   sum    ]
             a row 1   x   [   sum    |   sum    ]          8 loads (a number is copied to all lanes)
             ...                                           16 multiply-adds, on sums that never leave the registers
             a row 7   x   [   sum    |   sum    ]

In symbols, for i < 8 and lane < 16 * vectors:

    c[c_first + c_rows[i] + lane]  =  start[start_first + start_rows[i] + lane]  +  sum over o < outer, k < inner of
        a[a_first + a_rows[i] + o * a_outer + k * a_step]  *  b[b_first + (o * inner + k) * b_step + lane]

In a convolution, the rows are 8 output pixels, the lanes output channels, and the sum runs over the pixels that the
kernel covers: `inner` over a row of the kernel, which is contiguous in channels-last memory, `outer` over its rows. So
no patch matrix is built. `a_rows` and `c_rows` say where each pixel lies: the 8 need not be neighbours. In the weight
gradient, rows are weights and the sum runs over pixels. `start` is the bias, or c itself when a sum is continued.

Numba cannot express vectors, so the tile is written as LLVM instructions. `builder.x(...)` appends the instruction x;
the Python loops below run once, while compiling, and unroll the tile. The sums are variables in memory here, and LLVM
moves them to registers. LLVM also splits 16 lanes into what the machine has, so that the same code works, slower,
without AVX-512.

Numba's cache notices changes of the file that a kernel stands in, not of this one: after editing it, delete
`__pycache__`.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 in a vector: 512 bits
ROWS = 8  # of a tile; 8 rows * 2 vectors = 16 sums, + 2 vectors of b + 1 number of a = 19 of the 32 registers

_FLOAT = ir.FloatType()
_INTEGER = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _make_tile(vectors: int) -> Callable[..., None]:
    """A tile of 8 rows and 16 * vectors lanes."""

    @intrinsic
    def tile(
        typing_context, a, a_first, a_rows, a_step, a_outer, b, b_first, b_step, b_lane,
        start, start_first, start_rows, c, c_first, c_rows, row, inner, outer,
    ):  # fmt: skip
        """The equation above. This tile's entries of the `_rows` begin at `row`; b's vectors lie b_lane apart."""
        i = types.intp
        signature = types.void(a, i, a_rows, i, i, b, i, i, i, start, i, start_rows, c, i, c_rows, i, i, i)

        def generate(context, builder, signature, arguments):
            _, a_first, _, a_step, a_outer, _, b_first, b_step, b_lane = arguments[:9]
            _, start_first, _, _, c_first, _, row, inner, outer = arguments[9:]
            names = {"a": 0, "a_rows": 2, "b": 5, "start": 9, "start_rows": 11, "c": 12, "c_rows": 14}
            data = {
                name: context.make_array(signature.args[at])(context, builder, arguments[at]).data
                for name, at in names.items()
            }

            def pointer(name, *offsets):
                return builder.gep(data[name], [_sum(builder, *offsets)])

            def row_offset(name, number):
                return builder.load(pointer(name, row, _INTEGER(number)))

            a_pointers = [pointer("a", a_first, row_offset("a_rows", number)) for number in range(ROWS)]
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(vectors)] for _ in range(ROWS)]
            for number in range(ROWS):
                for v in range(vectors):
                    at = pointer("start", start_first, row_offset("start_rows", number), _INTEGER(LANES * v))
                    builder.store(_load(builder, at), sums[number][v])

            with cgutils.for_range(builder, outer) as outer_loop:
                a_start = builder.mul(outer_loop.index, a_outer)
                b_start = builder.add(b_first, builder.mul(builder.mul(outer_loop.index, inner), b_step))
                with cgutils.for_range(builder, inner) as inner_loop:
                    a_at = builder.add(a_start, builder.mul(inner_loop.index, a_step))
                    b_at = builder.add(b_start, builder.mul(inner_loop.index, b_step))
                    b_vectors = [
                        _load(builder, pointer("b", b_at, builder.mul(b_lane, _INTEGER(v)))) for v in range(vectors)
                    ]
                    for number in range(ROWS):
                        value = _to_all_lanes(builder, builder.load(builder.gep(a_pointers[number], [a_at])))
                        for v in range(vectors):
                            total = builder.load(sums[number][v])
                            builder.store(_multiply_add(builder, value, b_vectors[v], total), sums[number][v])

            for number in range(ROWS):
                for v in range(vectors):
                    at = pointer("c", c_first, row_offset("c_rows", number), _INTEGER(LANES * v))
                    _store(builder, builder.load(sums[number][v]), at)
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def copy_lanes(typing_context, target, target_at, source, source_at):
    """target[target_at + lane] = source[source_at + lane] for the 16 lanes."""

    def generate(context, builder, signature, arguments):
        pointers = [
            builder.gep(context.make_array(kind)(context, builder, array).data, [at])
            for kind, array, at in ((target, arguments[0], arguments[1]), (source, arguments[2], arguments[3]))
        ]
        _store(builder, _load(builder, pointers[1]), pointers[0])
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


def _sum(builder, first, *others):
    for other in others:
        first = builder.add(first, other)
    return first


def _load(builder, pointer):
    vector = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    vector.align = 4  # a float32 may lie anywhere, not only at multiples of 64 bytes
    return vector


def _store(builder, vector, pointer):
    builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer())).align = 4


def _to_all_lanes(builder, number):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one_lane = builder.insert_element(undefined, number, ir.IntType(32)(0))
    every_lane_takes_the_first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one_lane, undefined, every_lane_takes_the_first)


def _multiply_add(builder, x, y, z):
    """x * y + z, in one fused instruction where the machine has it."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v16f32")
    return builder.call(function, [x, y, z])


# Made here and not where they are used, because Numba caches only what does not depend on the caller's variables.
tile_of_16 = _make_tile(vectors=1)
tile_of_32 = _make_tile(vectors=2)
