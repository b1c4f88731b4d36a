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
no patch matrix is built. `a_rows` and `c_rows` say where each pixel lies: the 8 need not be neighbours. `start` is the
bias, or c itself when a sum is continued.

In the weight gradient, rows are weights and the sum runs over pixels, as many as there are, of several rows and images.
For it, a tile takes a list of where its steps lie:

    c[...]  =  start[...]  +  sum over k < count of
        a[a_first + a_rows[i] + a_steps[first + k]]  *  b[b_first + k * b_step + lane]

Numba cannot express vectors, so the tile is written as LLVM instructions. `builder.x(...)` appends the instruction x;
the Python loops below run once, while compiling, and unroll the tile. The sums are variables in memory here, and LLVM
moves them to registers. LLVM also splits 16 lanes into what the machine has.

Without AVX-512 there are 16 registers of 8 lanes, a quarter as much. Sums that do not fit would be stored and loaded
again in every step, so there the tile is computed in parts of 4 rows and 16 lanes, one after the other, which keep 8
registers of sums, 2 of b and 1 of a: more than twice as fast.

Numba's cache notices changes of the file that a kernel stands in, not of this one: after editing it, delete
`__pycache__`.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 in a vector: 512 bits
ROWS = 8  # of a tile; 8 rows * 2 vectors = 16 sums, + 2 vectors of b + 1 number of a = 19 of the 32 registers

# Rows and vectors that are summed at once: all of the tile's where there are registers for them.
_WIDE = llvm.get_host_cpu_features().get("avx512f", False)
_PART_ROWS, _PART_VECTORS = (ROWS, 2) if _WIDE else (4, 1)

_FLOAT = ir.FloatType()
_INTEGER = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


class _Sums:
    """While compiling: the sums of a tile, or of some rows and vectors of it, and the arrays by the names of the tile's
    arguments."""

    def __init__(self, context, builder, signature, arguments, names, rows, vectors):
        self.builder, self.rows, self.vectors = builder, rows, vectors
        self.values = dict(zip(names, arguments, strict=True))
        self.data = {
            name: context.make_array(kind)(context, builder, self.values[name]).data
            for name, kind in zip(names, signature.args, strict=True)
            if isinstance(kind, types.Array)
        }
        self.variables = [[cgutils.alloca_once(builder, _VECTOR) for _ in vectors] for _ in rows]

    def pointer(self, name, *offsets):
        return self.builder.gep(self.data[name], [_sum(self.builder, *offsets)])

    def row_pointer(self, name, number, *offsets):
        """Where row `number` of the tile begins in a, start or c."""
        row = self.builder.load(self.pointer(f"{name}_rows", self.values["row"], _INTEGER(number)))
        return self.pointer(name, self.values[f"{name}_first"], row, *offsets)

    def load(self):
        for number, row in zip(self.rows, self.variables, strict=True):
            for v, variable in zip(self.vectors, row, strict=True):
                self.builder.store(
                    _load(self.builder, self.row_pointer("start", number, _INTEGER(LANES * v))), variable
                )

    def add_products(self, a_pointers, b_at):
        """One step: every row's number of a times every vector of b."""
        b_lane = self.values["b_lane"]
        b_pointers = [self.pointer("b", b_at, self.builder.mul(b_lane, _INTEGER(v))) for v in self.vectors]
        b_vectors = [_load(self.builder, pointer) for pointer in b_pointers]
        for a_pointer, row in zip(a_pointers, self.variables, strict=True):
            value = _to_all_lanes(self.builder, self.builder.load(a_pointer))
            for variable, b_vector in zip(row, b_vectors, strict=True):
                total = self.builder.load(variable)
                self.builder.store(_multiply_add(self.builder, value, b_vector, total), variable)

    def store(self):
        for number, row in zip(self.rows, self.variables, strict=True):
            for v, variable in zip(self.vectors, row, strict=True):
                _store(self.builder, self.builder.load(variable), self.row_pointer("c", number, _INTEGER(LANES * v)))


def _parts(vectors: int) -> list[tuple[range, range]]:
    """The rows and the vectors that are summed at once, part by part."""
    return [
        (range(row, row + _PART_ROWS), range(vector, min(vector + _PART_VECTORS, vectors)))
        for vector in range(0, vectors, _PART_VECTORS)
        for row in range(0, ROWS, _PART_ROWS)
    ]


def _make_tile(vectors: int) -> Callable[..., None]:
    """A tile of 8 rows and 16 * vectors lanes, whose steps are evenly spaced in a."""
    names = [
        "a", "a_first", "a_rows", "a_step", "a_outer", "b", "b_first", "b_step", "b_lane", "start",
        "start_first", "start_rows", "c", "c_first", "c_rows", "row", "inner", "outer",
    ]  # fmt: skip

    @intrinsic
    def tile(
        typing_context, a, a_first, a_rows, a_step, a_outer, b, b_first, b_step, b_lane,
        start, start_first, start_rows, c, c_first, c_rows, row, inner, outer,
    ):  # fmt: skip
        """The equation above. This tile's entries of the `_rows` begin at `row`; b's vectors lie b_lane apart."""
        i = types.intp
        signature = types.void(a, i, a_rows, i, i, b, i, i, i, start, i, start_rows, c, i, c_rows, i, i, i)

        def generate(context, builder, signature, arguments):
            for part in _parts(vectors):
                sums = _Sums(context, builder, signature, arguments, names, *part)
                of = sums.values
                a_pointers = [sums.row_pointer("a", number) for number in sums.rows]
                sums.load()
                with cgutils.for_range(builder, of["outer"]) as outer_loop:
                    a_start = builder.mul(outer_loop.index, of["a_outer"])
                    steps_before = builder.mul(outer_loop.index, of["inner"])
                    b_start = builder.add(of["b_first"], builder.mul(steps_before, of["b_step"]))
                    with cgutils.for_range(builder, of["inner"]) as inner_loop:
                        a_at = builder.add(a_start, builder.mul(inner_loop.index, of["a_step"]))
                        b_at = builder.add(b_start, builder.mul(inner_loop.index, of["b_step"]))
                        sums.add_products([builder.gep(pointer, [a_at]) for pointer in a_pointers], b_at)
                sums.store()
            return context.get_dummy_value()

        return signature, generate

    return tile


def _make_tile_of_listed_steps(vectors: int) -> Callable[..., None]:
    """A tile of 8 rows and 16 * vectors lanes, whose steps lie anywhere in a."""
    names = [
        "a", "a_first", "a_rows", "a_steps", "b", "b_first", "b_step", "b_lane", "start", "start_first",
        "start_rows", "c", "c_first", "c_rows", "row", "first", "count",
    ]  # fmt: skip

    @intrinsic
    def tile(
        typing_context, a, a_first, a_rows, a_steps, b, b_first, b_step, b_lane,
        start, start_first, start_rows, c, c_first, c_rows, row, first, count,
    ):  # fmt: skip
        """The second equation above: steps first, first + 1, ... of the list, `count` of them."""
        i = types.intp
        signature = types.void(a, i, a_rows, a_steps, b, i, i, i, start, i, start_rows, c, i, c_rows, i, i, i)

        def generate(context, builder, signature, arguments):
            for part in _parts(vectors):
                sums = _Sums(context, builder, signature, arguments, names, *part)
                of = sums.values
                a_pointers = [sums.row_pointer("a", number) for number in sums.rows]
                sums.load()
                with cgutils.for_range(builder, of["count"]) as loop:
                    a_at = builder.load(sums.pointer("a_steps", of["first"], loop.index))
                    b_at = builder.add(of["b_first"], builder.mul(loop.index, of["b_step"]))
                    sums.add_products([builder.gep(pointer, [a_at]) for pointer in a_pointers], b_at)
                sums.store()
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
listed_tile_of_16 = _make_tile_of_listed_steps(vectors=1)
listed_tile_of_32 = _make_tile_of_listed_steps(vectors=2)
