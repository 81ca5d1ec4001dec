"""A coverage-guided fuzzer of the Arrow reader, on damaged streams and files: ``make fuzz``.

What is read, pyarrow reads too, and the same.
"""

from __future__ import annotations

import io
import sys

import atheris
import pyarrow as pa

with atheris.instrument_imports(include=["app.framing"]):
    from app.framing.arrow import reader
    from app.framing.batches import Cutter

from tests.fuzz.cuts import cut_outcome, damaged, printed, text_of

TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 4], pa.int64()),
        "text": pa.array(["a", None, "", "ünï"]),
        "view": pa.array(["a text that is no short one", None, "", "x"], pa.string_view()),
        "word": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "list": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int32())),
        "both": pa.array([{"x": 1}, None, {"x": None}, {"x": 4}]),
    }
)


def encoded(*, file: bool, compression: str | None, columns: list[str]) -> bytes:
    sink, table = io.BytesIO(), TABLE.select(columns)
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(table, max_chunksize=2)
    return sink.getvalue()


FILES = [
    encoded(file=file, compression=compression, columns=columns)
    for file in (False, True)
    for compression in (None, "lz4", "zstd")
    for columns in (TABLE.column_names, ["id", "text"], ["word"], ["view"])
]


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    file = provider.PickValueInList(FILES)
    step = provider.ConsumeIntInRange(0, 40)
    changed = damaged(provider, file)
    cuts = list(range(step, len(changed), step)) if step else []
    whole = cut_outcome(lambda: reader(page_bytes=4096, max_message_bytes=1 << 16), changed, cuts, printed)
    if whole.refusal is None and not changed.startswith(b"ARROW1"):
        plain = Cutter(pa.ipc.open_stream(changed).schema, page_bytes=1 << 20)
        batches = [cut for batch in pa.ipc.open_stream(changed) for cut in plain.cut(batch, room_bytes=1 << 20)]
        assert not batches or text_of(pa.Table.from_batches(batches)) == whole.content, changed


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
