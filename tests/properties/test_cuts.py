"""Whatever pieces an input comes in, the output is the same: whole pipelines, by the engine that serves."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.core.page import Page
from app.pipeline import Flow, FlowOptions
from app.plan import FORMATS, BuildOptions, build, plan_of_query
from app.sources.spooled import spooled_pages
from app.stages.sql_engine import QueryOptions
from app.stores.spool import Spool
from tests.conformance.check_stage import pages_of

PAGE = 4096
OPTIONS = BuildOptions(
    page_bytes=PAGE,
    max_line_bytes=PAGE,
    max_expansion=1000.0,
    whole_bytes=1 << 22,
    query=QueryOptions(PAGE, 1, 64 << 20),
)
EXECUTOR = ThreadPoolExecutor(2)

TABLE = pa.table(
    {
        "id": pa.array([1, 2, None, 4], pa.int64()),
        "text": pa.array(['quoted "text",\r\nin two lines', "ünï 水 🙂", "", None]),
        "price": pa.array([1.5, -2.25, None, 1e300]),
        "day": pa.array([0, 20000, None, 1], pa.date32()),
        "flag": pa.array([True, False, None, True]),
    }
)


class Collected:
    """A sink in memory."""

    holds = 0

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, page: Page) -> None:
        self.data += page.payload

    async def commit(self) -> Receipt:
        return Receipt(len(self.data))

    async def abort(self) -> None:
        self.data.clear()


def outcome(query: str, pages: Iterable[Page], spool: Spool) -> bytes | tuple[str | int | None, ...]:
    """What the pipeline makes of the pages: the bytes, or the refusal's code, line, byte and column."""

    async def arriving() -> AsyncIterator[Page]:
        for page in pages:
            yield page

    async def run() -> bytes:
        plan = plan_of_query(parse_qsl(query, keep_blank_values=True))
        plan = replace(plan, target=plan.target or plan.source)
        built = build(plan, OPTIONS)
        source: AsyncIterator[Page] = arriving()
        if built.read_file is not None:
            source = spooled_pages(source, spool, built.read_file, EXECUTOR)
        sink = Collected()
        flow = Flow(
            source,
            built.stages,
            sink,
            EXECUTOR,
            FlowOptions(built.page_bytes, 2 * built.page_bytes, 2),
            outside_bytes=built.outside_bytes,
        )
        await flow.run()
        return bytes(sink.data)

    try:
        return asyncio.run(run())
    except Refusal as refusal:
        return refusal.code, refusal.line, refusal.byte, refusal.column


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    spool = Spool(tmp_path_factory.mktemp("spool"), limit_bytes=1 << 26)
    yield spool
    spool.close()


def encoded(name: str) -> bytes:
    """The table as a file of the format, from hands other than ours where there are any."""
    sink = io.BytesIO()
    if name == "parquet":
        pq.write_table(TABLE, sink, row_group_size=3)
    elif name == "arrow":
        with pa.ipc.new_stream(sink, TABLE.schema) as out:
            out.write_table(TABLE, max_chunksize=3)
    elif name == "ndjson":
        text = (
            '{"id":1,"text":"quoted \\"text\\",\\r\\nin two lines","price":1.5,"day":"1970-01-01","flag":true}\n'
            '{"id":2,"text":"ünï 水 🙂","price":-2.25,"day":"2024-10-04","flag":false}\r\n\n'
            '{"text":"","id":null}\n{"id":4,"price":1e300,"flag":true,"day":"1970-01-02"}'
        )
        sink.write(b"\xef\xbb\xbf" + text.encode())
    elif name in ("csv", "tsv"):
        rows = [
            ("id", "text", "price", "day", "flag"),
            ("1", '"quoted ""text"",\r\nin two lines"', "1.5", "1970-01-01", "true"),
            ("2", "ünï 水 🙂", "-2.25", "2024-10-04", "false"),
            ("", '""', "", "", ""),
            ("4", "", "1e300", "1970-01-02", "true"),
        ]
        text = "\r\n".join(("," if name == "csv" else "\t").join(row) for row in rows)
        sink.write(b"\xef\xbb\xbf" + text.encode())
    else:
        sink.write("some text\nline two, ünï\r\n\nand a last line without its end".encode())
    return sink.getvalue()


PIPELINES = (
    "from=bytes&upper",
    "from=lines&grep=i&replace=/t/T/&limit=3",
    "from=csv&to=csv",
    "from=csv&limit=3&sample=0.9&to=csv",
    "from=csv&grep=.&lower&derive=id*2 as twice&where=flag&to=ndjson",
    "from=csv&types=id:decimal(9,2)&offset=1&to=tsv",
    "from=csv&infer=full&to=ndjson",
    "from=csv&header=false&quote=none&null=4,true&on_error=skip&to=ndjson",
    "from=tsv&to=json",
    "from=tsv&encoding=windows-1252&infer=full&to=csv",
    "from=ndjson&to=csv",
    "from=ndjson&infer=full&on_error=skip&to=csv",
    "from=ndjson&select=text,price*2 as more&to=arrow",
    "from=csv&to=arrow",
    "from=ndjson&where=price<2&derive=id-1 as before&to=arrow",
    "from=arrow&to=ndjson",
    "from=arrow&where=id>1&to=csv",
    "from=parquet&select=id,text&to=csv",
    "from=csv&to=parquet",
    "from=lines&compress=gzip",
    "from=lines&compress=zstd",
)


def step_of(query: str) -> int:
    """Text is cut at every byte, and Arrow at all distances from what it aligns. Parquet is spooled, and read as a file.
    What a query is given are rows, and each opens an engine."""
    if plan_source(query) == "parquet":
        return 101
    return {"arrow": 9}.get(plan_source(query), 1) * (7 if any(word in query for word in QUERIES) else 1)


QUERIES = ("where=", "select=", "derive=")


@pytest.mark.parametrize("query", PIPELINES)
def test_a_cut_at_any_byte_changes_nothing(query: str, spool: Spool) -> None:
    data = encoded(plan_source(query))
    expected = outcome(query, pages_of(data, ()), spool)
    assert isinstance(expected, bytes), expected
    assert expected
    for position in range(1, len(data), step_of(query)):
        assert outcome(query, pages_of(data, (position,)), spool) == expected, position
    assert outcome(query, pages_of(data, range(1, len(data))), spool) == expected


@pytest.mark.parametrize("codec", ["gzip"])
def test_a_cut_of_a_compressed_body_changes_nothing(codec: str, spool: Spool) -> None:
    data = gzip.compress(encoded("csv"))
    query = f"decompress={codec}&from=csv&to=ndjson"
    expected = outcome(query, pages_of(data, ()), spool)
    assert isinstance(expected, bytes), expected
    for position in range(1, len(data)):
        assert outcome(query, pages_of(data, (position,)), spool) == expected


def plan_source(query: str) -> str:
    return dict(parse_qsl(query))["from"]


FIELDS = st.sampled_from(["1", "2.5", "x", '"a,b"', '"a\nb"', '"a""b"', "", '""', "ü", "🙂", " ", "true", "2020-01-01"])
NEWLINES = st.sampled_from(["\n", "\r\n"])


@st.composite
def messy_csv(draw: st.DrawFn) -> bytes:
    """CSV that is mostly right: now and then a row too long or too short, an open quote, a byte that is not UTF-8."""
    columns = draw(st.integers(1, 4))
    lines = [",".join(f"c{index}" for index in range(columns)) + draw(NEWLINES)]
    for _ in range(draw(st.integers(0, 12))):
        width = columns + draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]))
        lines.append(",".join(draw(st.lists(FIELDS, min_size=width, max_size=width))) + draw(NEWLINES))
    text = "".join(lines).encode()
    return text + draw(st.sampled_from([b"", b"", b"", b'"open', b"\xff\n", b"x"]))


@given(
    data=messy_csv(),
    cuts=st.sets(st.integers(1, 200)),
    more=st.sampled_from(["fail", "skip"]),
    full=st.sampled_from(["", "&infer=full"]),
)
@settings(max_examples=100, deadline=None)
def test_messy_csv_comes_out_the_same_however_it_is_cut(
    spool: Spool, data: bytes, cuts: set[int], more: str, full: str
) -> None:
    query = f"from=csv&on_error={more}&to=ndjson{full}"
    whole = outcome(query, pages_of(data, ()), spool)
    assert outcome(query, pages_of(data, sorted(cut for cut in cuts if cut < len(data))), spool) == whole


JSON_LINES = st.sampled_from(
    [
        '{"a":1,"b":"x"}',
        '{"b":"ü🙂\\n","a":-5}',
        ' {"a":null} ',
        "",
        '{"c":1}',
        '{"a":"no number"}',
        "[1]",
        '{"a":1',
        '{"a":1}{"a":2}',
        '{"a":1,"a":2}',
    ]
)


@given(
    lines=st.lists(JSON_LINES, max_size=10),
    newline=NEWLINES,
    cuts=st.sets(st.integers(1, 200)),
    last=st.booleans(),
    more=st.sampled_from(["fail", "skip"]),
)
@settings(max_examples=100, deadline=None)
def test_messy_ndjson_comes_out_the_same_however_it_is_cut(
    spool: Spool, lines: list[str], newline: str, cuts: set[int], last: bool, more: str
) -> None:
    data = (newline.join(['{"a":1,"b":"x"}', *lines]) + (newline if last else "")).encode()
    query = f"from=ndjson&on_error={more}&to=csv"
    whole = outcome(query, pages_of(data, ()), spool)
    assert outcome(query, pages_of(data, sorted(cut for cut in cuts if cut < len(data))), spool) == whole


def test_every_format_is_cut_here() -> None:
    words = [dict(parse_qsl(query, keep_blank_values=True)) for query in PIPELINES]
    read = {word["from"] for word in words}
    written = {word.get("to", word["from"]) for word in words}
    assert read == {name for name, format in FORMATS.items() if format.read or format.read_file}
    assert written == set(FORMATS)


def test_the_files_of_tests_are_what_they_seem(spool: Spool, tmp_path: Path) -> None:
    expected = outcome("from=csv&where=true&to=csv", pages_of(encoded("csv"), ()), spool)
    for name in ("tsv", "ndjson", "parquet", "arrow"):
        assert outcome(f"from={name}&where=true&to=csv", pages_of(encoded(name), ()), spool) == expected, name
