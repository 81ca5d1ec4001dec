"""A coverage-guided fuzzer of the Parquet reader, on damaged files: ``make fuzz``.

What is read from a file near by is what is read from one far away, in ranges, which may need more memory.
"""

from __future__ import annotations

import io
import sys

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["app.framing"]):
    from app.framing.needs import Condition, Constant, Needs
    from app.framing.parquet_pages import batches

from app.core.errors import Refusal
from tests.fuzz.cuts import damaged
from tests.inputs import Far, Near

TABLE = pa.table(
    {
        "id": pa.array(range(40), pa.int64()),
        "text": pa.array(["a", None, "", "ünï"] * 10),
        "list": pa.array([[1], [], None, [2, 3]] * 10, pa.list_(pa.int32())),
    }
)


def encoded(compression: str, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, row_group_size=20, compression=compression, **options)
    return sink.getvalue()


FILES = [
    encoded(compression, data_page_version=version, use_dictionary=use_dictionary)
    for compression in ("none", "snappy", "zstd", "gzip")
    for version in ("1.0", "2.0")
    for use_dictionary in (False, True)
]


def read(input: Far | Near, needs: Needs) -> str | Refusal:
    try:
        pages = list(batches(input, page_bytes=4096, memory_bytes=1 << 20, needs=needs))
    except Refusal as refusal:
        return refusal
    for page in pages:
        page.payload.validate(full=True)
    return repr([row for page in pages for row in page.payload.to_pylist()])


NEEDS = [
    Needs(),
    Needs(frozenset({(b"id",)})),
    Needs(frozenset({(b"text",)}), conditions=(Condition(b"id", ">", (Constant("integer", "30"),)),)),
]


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    file = provider.PickValueInList(FILES)
    needs = provider.PickValueInList(NEEDS)
    changed = damaged(provider, file)
    if changed:
        near, far = read(Near(changed), needs), read(Far(changed), needs)
        if isinstance(far, Refusal):
            assert isinstance(near, Refusal) or far.code == "page_too_large", (changed, far)
        else:
            assert near == far, changed


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
