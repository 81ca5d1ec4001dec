"""Floats as C writes them are those that pyarrow casts to text."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.framing.csv_write import CsvWrite
from app.framing.json_text import rows_text
from app.framing.row_text import Column, Quoting, is_written, row_text
from app.framing.slices import Slices
from tests.framing.native import each_build

__all__ = ["each_build"]

TYPES = [pa.float64(), pa.float32()]
LONGEST = {pa.float64(): -1.2345678901234567e-06, pa.float32(): -1.0000001e-06, pa.float16(): -1.0132789611816406e-06}


def check(array: pa.Array) -> None:
    assert is_written(array.type)
    text = row_text([Column(array, b"", Quoting.PLAIN)], null=b"", end=b"\n")
    assert text is not None
    assert bytes(text).decode().splitlines() == array.cast(pa.string()).to_pylist()


def of_bits(bits: Iterable[int], type_: pa.DataType) -> pa.Array:
    nbytes = type_.bit_width // 8
    octets = b"".join(value.to_bytes(nbytes, "little") for value in bits)
    return pa.Array.from_buffers(type_, len(octets) // nbytes, [None, pa.py_buffer(octets)])


def around(array: pa.Array, steps: int) -> pa.Array:
    """The values, and some of their neighbours on both sides."""
    width = array.type.bit_width
    whole = array.view(pa.uint64() if width == 64 else pa.uint32()).to_pylist()
    return of_bits(((bits + step) % 2**width for bits in whole for step in range(-steps, steps + 1)), array.type)


@pytest.mark.parametrize("type_", TYPES, ids=str)
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_bits(type_: pa.DataType, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.integers(0, 2**type_.bit_width - 1), min_size=1, max_size=50))
    check(of_bits(bits, type_))


@pytest.mark.parametrize("type_", TYPES, ids=str)
@pytest.mark.parametrize("digits", range(1, 18))
def test_decimals(type_: pa.DataType, digits: int) -> None:
    drawn = random.Random(digits)
    whole = [drawn.randrange(-(10**digits), 10**digits) for _ in range(1000)]
    check(pa.array([float(f"{value}e{drawn.randrange(-22, 12)}") for value in whole], pa.float64()).cast(type_))
    check(pa.array([float(f"{value}e-{places}") for value in whole for places in range(10)]).cast(type_))


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_many_bits(type_: pa.DataType) -> None:
    drawn = random.Random(1)
    check(of_bits((drawn.getrandbits(type_.bit_width) for _ in range(100_000)), type_))


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_powers_and_their_neighbours(type_: pa.DataType) -> None:
    """The distance to the next number changes at powers of two, the number of digits at those of ten."""
    twos = [math.ldexp(1, power) for power in range(-1074, 1024)]
    tens = [float(f"{digit}e{power}") for power in range(-323, 308) for digit in (1, 5, 9.5)]
    check(around(pa.array(twos + tens).cast(type_, safe=False), 3))


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_what_lies_in_the_middle(type_: pa.DataType) -> None:
    """Numbers with a half behind the last place that is shown, and whole ones beyond those that are exact."""
    drawn = random.Random(2)
    halves = [drawn.getrandbits(drawn.randrange(1, 64)) / 2 for _ in range(20_000)]
    check(around(pa.array(halves).cast(type_, safe=False), 1))


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_subnormals_and_what_is_no_number(type_: pa.DataType) -> None:
    width, mantissa = type_.bit_width, 52 if type_.bit_width == 64 else 23
    drawn = random.Random(3)
    check(of_bits([*range(2000), *(drawn.getrandbits(mantissa) for _ in range(5000))], type_))
    infinity = ((1 << (width - 1)) - 1) >> mantissa << mantissa
    sign = 1 << (width - 1)
    check(
        of_bits([0, sign, infinity, infinity | sign, infinity + 1, infinity | sign | 1, sign - 1, 2 * sign - 1], type_)
    )


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_nulls_and_what_is_no_number_in_rows(type_: pa.DataType) -> None:
    values = [9.0, None, math.nan, math.inf, -math.inf, -0.0, 1e10]
    batch = pa.RecordBatch.from_arrays([pa.array(values, type_)], ["x"]).slice(1)
    assert bytes(CsvWrite(b",").text(batch, b"")).split(b"\n") == [b"", b"nan", b"inf", b"-inf", b"-0", b"1e+10", b""]
    assert bytes(rows_text(batch)).splitlines() == [b'{"x":%s}' % text for text in [b"null"] * 4 + [b"-0", b"1e+10"]]


@pytest.mark.parametrize("type_", LONGEST, ids=str)
def test_the_longest_is_reckoned_with(type_: pa.DataType) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([LONGEST[type_]] * 1000).cast(type_, safe=False)], ["x"])
    slices = Slices("s", page_bytes=1, control_factor=2, column_bytes=lambda _: 1)
    assert slices.text_bytes(batch) == len(CsvWrite(b",").text(batch, b""))
