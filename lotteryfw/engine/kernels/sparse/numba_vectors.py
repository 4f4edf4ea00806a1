"""Vectors of float32 for the loops of numba: a sum of vectors then stays in registers.

Of a plain loop over arrays the compiler makes vector instructions too, but where the length of the
sum is known at run time alone it loads and stores the sum for every few products. A `Vector` is a
value of numba's, of a length that is known to the compiler, which takes as many registers for it as
the processor needs. These functions are called in jitted code alone, and do not check their places:
rows of arrays hold whole tiles (see `loops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from lotteryfw.engine.kernels.sparse.loops import LONG_TILE, TILE

_INDEX = ir.IntType(32)
_FLOAT_BYTES = 4


def _in_jitted_code(generator: Callable[..., Any]) -> Any:
    """Return the function that jitted code calls with the arguments after the first."""
    return intrinsic(generator)


class Vector(types.Type):
    """So many float32."""

    def __init__(self, length: int):
        super().__init__(f"Vector({length})")
        self.length = length


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector):
        super().__init__(manager, vector, ir.VectorType(ir.FloatType(), vector.length))


@_in_jitted_code
def short_zeros(typing_context: Any) -> Any:
    """Return a vector of `TILE` zeros."""
    return _zeros(TILE)


@_in_jitted_code
def long_zeros(typing_context: Any) -> Any:
    """Return a vector of `LONG_TILE` zeros."""
    return _zeros(LONG_TILE)


def _zeros(count: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_value_type(signature.return_type)([0.0] * count)

    return Vector(count)(), generate


@_in_jitted_code
def length(typing_context: Any, vector: Any) -> Any:
    """Return the length of a vector, a constant to the compiler."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, vector.length)

    return types.intp(vector), generate


@_in_jitted_code
def filled(typing_context: Any, like: Any, number: Any) -> Any:
    """Return a vector of the length of `like` that holds a number everywhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[1], arguments[0].type)

    return like(like, types.float32), generate


@_in_jitted_code
def load(typing_context: Any, like: Any, array: Any, row: Any, column: Any) -> Any:
    """Return as many entries of a row of an array, from `column` on, as `like` has."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, *place = arguments
        address = _address(context, builder, signature.args[1:], place, vector.type)
        return builder.load(address, align=_FLOAT_BYTES)

    return like(like, array, row, column), generate


@_in_jitted_code
def store(typing_context: Any, vector: Any, array: Any, row: Any, column: Any) -> Any:
    """Write a vector into a row of an array, from `column` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, *place = arguments
        address = _address(context, builder, signature.args[1:], place, vector.type)
        builder.store(vector, address, align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.none(vector, array, row, column), generate


@_in_jitted_code
def multiply_add(typing_context: Any, factor: Any, vector: Any, total: Any) -> Any:
    """Return factor · vector + total; the factor is a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor, vector, total = arguments
        return _multiply_add(builder, _spread(builder, factor, vector.type), vector, total)

    return total(types.float32, vector, total), generate


@_in_jitted_code
def multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the products of two vectors, place by place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return a(a, b), generate


@_in_jitted_code
def add_products(typing_context: Any, a: Any, b: Any, total: Any) -> Any:
    """Add the products of two vectors to a vector of `TILE`, their parts one after another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, total = arguments
        for start in range(0, a.type.count, TILE):
            parts = _part(builder, a, start, TILE), _part(builder, b, start, TILE)
            total = _multiply_add(builder, *parts, total)
        return total

    return total(a, b, total), generate


@_in_jitted_code
def where_positive(typing_context: Any, vector: Any, other: Any) -> Any:
    """Return a vector with 0 in the places where `other` is 0 or less; NaN is neither."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, other = arguments
        zeros = vector.type([0.0] * vector.type.count)
        return builder.select(builder.fcmp_ordered("<=", other, zeros), zeros, vector)

    return vector(vector, other), generate


@_in_jitted_code
def four_sums(typing_context: Any, v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    """Return the sums of four vectors of `TILE`, a vector of 4, in less than the time of two."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # First [8 of a, 8 of b] and [8 of c, 8 of d], then [4 of a, 4 of b, 4 of c, 4 of d].
        a, b, c, d = arguments
        ab, cd = _add_halves(builder, a, b, 8), _add_halves(builder, c, d, 8)
        sums = _add_halves(builder, ab, cd, 4)
        for distance in (2, 1):
            others = [place ^ distance for place in range(TILE)]
            sums = builder.fadd(sums, _shuffle(builder, sums, sums, others))
        return _shuffle(builder, sums, sums, [0, 4, 8, 12])

    return Vector(4)(v0, v1, v2, v3), generate


@_in_jitted_code
def first(typing_context: Any, vector: Any) -> Any:
    """Return the first number of a vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], _INDEX(0))

    return types.float32(vector), generate


def _add_halves(builder: Any, a: Any, b: Any, size: int) -> Any:
    """Return the sums of every two runs of `size` of a and b: those of a, then those of b."""
    places = range(2 * TILE)
    evens = [place for place in places if not place & size]
    odds = [place for place in places if place & size]
    return builder.fadd(_shuffle(builder, a, b, evens), _shuffle(builder, a, b, odds))


def _multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Return a · b + total, rounded once where the processor can."""
    kind = ir.FunctionType(total.type, [total.type] * 3)
    name = f"llvm.fmuladd.v{total.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, total])


def _spread(builder: Any, number: Any, kind: ir.VectorType) -> Any:
    one = builder.insert_element(kind(ir.Undefined), number, _INDEX(0))
    return _shuffle(builder, one, one, [0] * kind.count)


def _part(builder: Any, vector: Any, start: int, size: int) -> Any:
    return _shuffle(builder, vector, vector, list(range(start, start + size)))


def _shuffle(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.VectorType(_INDEX, len(places))(places))


def _address(context: Any, builder: Any, kinds: Any, place: Any, vector: ir.VectorType) -> Any:
    """Return a pointer to a vector in an array, whose type and those of its indices are `kinds`."""
    array_type, *index_types = kinds
    array, *indices = place
    whole = []
    for index, kind in zip(indices, index_types, strict=True):
        whole.append(context.cast(builder, index, kind, types.intp))
    view = context.make_array(array_type)(context, builder, array)
    address = cgutils.get_item_pointer(
        context, builder, array_type, view, whole, wraparound=False, boundscheck=False
    )
    return builder.bitcast(address, vector.as_pointer())
