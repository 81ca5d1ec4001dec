"""The catalogue of formats: what each is called, and the stages that turn its bytes into pages and back.

Everything in this room is sans-IO: plain functions from pages to pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import app.framing.arrow as arrow
import app.framing.csv as csv
import app.framing.json as json
import app.framing.lines as lines
import app.framing.ndjson as ndjson
import app.framing.parquet as parquet
import app.framing.parquet_scan as parquet_scan
from app.core.errors import Refusal, known
from app.core.interfaces import RandomAccess, Stage
from app.core.page import Page
from app.framing.dialect import READING_WORDS, csv_dialect
from app.framing.needs import ALL, Needs, PassedOver
from app.framing.survey import Survey


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """``page_bytes``: the size of pages to aim at. ``max_line_bytes``: the longest record. ``types``: columns whose
    type the user has set. ``whole_bytes``: what may be held of a piece that cannot be cut (an Arrow message, the
    columns of a Parquet row group). ``needs``: what will be used; a format that can leaves the rest unread, and tells
    ``passed_over`` how many rows that are. ``reading``: the user's ``READING_WORDS``. ``survey``: what a first pass has
    found once the first page comes, where there is one. ``scan_grows``: set where a query gets the pages that may read a
    file by itself (see ``FileScan``), to how many times the bytes of rows it has in hand."""

    page_bytes: int
    max_line_bytes: int
    whole_bytes: int
    types: Mapping[str, Any]
    needs: Needs = ALL
    passed_over: PassedOver = field(default_factory=PassedOver)
    reading: Mapping[str, str] = field(default_factory=dict)
    survey: Survey | None = None
    scan_grows: float | None = None


COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "none")
"""Of Parquet files."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """``page_bytes``: the size of pages to aim at; ``compression``: of a Parquet file's pages."""

    page_bytes: int
    compression: str = "snappy"


@dataclass(frozen=True, slots=True)
class Format:
    """One format. ``kind`` tells what its pages are; ``text`` that it can be changed as text without harm.

    ``read`` makes the stages from bytes to pages; where it is None but ``read_file`` is not, the format is read from
    its end, and the input must be one of random access. ``write`` makes the stages from pages to bytes. ``survey`` makes
    those of a first pass over the bytes, the ``Survey`` last. ``words`` are those of ``READING_WORDS`` that it takes.
    """

    name: str
    media_types: tuple[str, ...]
    suffixes: tuple[str, ...]
    kind: Literal["bytes", "lines", "rows"]
    text: bool
    read: Callable[[ReadOptions], list[Stage]] | None
    write: Callable[[WriteOptions], list[Stage]] | None
    read_file: Callable[[RandomAccess, ReadOptions], Iterator[Page]] | None = None
    survey: Callable[[ReadOptions], tuple[Stage, Survey]] | None = None
    words: tuple[str, ...] = ()


def _csv(name: str, media_types: tuple[str, ...], suffixes: tuple[str, ...], delimiter: bytes) -> Format:
    return Format(
        name,
        media_types,
        suffixes,
        "rows",
        True,
        lambda o: csv.reader(
            dialect=csv_dialect(o.reading, delimiter=delimiter),
            page_bytes=o.page_bytes,
            max_line_bytes=o.max_line_bytes,
            types=o.types,
            survey=o.survey,
            needs=o.needs,
        ),
        lambda o: csv.writer(delimiter=delimiter, page_bytes=o.page_bytes),
        survey=lambda o: csv.surveyor(
            dialect=csv_dialect(o.reading, delimiter=delimiter),
            page_bytes=o.page_bytes,
            max_line_bytes=o.max_line_bytes,
        ),
        words=READING_WORDS,
    )


_ROW_GROUP_PAGES = 16
"""Arrow data of one Parquet row group. Larger ones compress and scan better, and are held whole while they are collected."""

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("bytes", ("application/octet-stream",), (".bin",), "bytes", True, lambda _: [], lambda _: []),
        Format(
            "lines",
            ("text/plain",),
            (".txt", ".log"),
            "lines",
            True,
            lambda o: lines.reader(page_bytes=o.page_bytes, max_line_bytes=o.max_line_bytes),
            lambda _: [],
            words=("encoding",),
        ),
        _csv("csv", ("text/csv", "application/csv"), (".csv",), b","),
        _csv("tsv", ("text/tab-separated-values",), (".tsv", ".tab"), b"\t"),
        Format(
            "ndjson",
            ("application/x-ndjson", "application/jsonl", "application/ndjson", "application/json-lines"),
            (".ndjson", ".jsonl"),
            "rows",
            True,
            lambda o: ndjson.reader(
                page_bytes=o.page_bytes, max_line_bytes=o.max_line_bytes, types=o.types, survey=o.survey, needs=o.needs
            ),
            lambda o: ndjson.writer(page_bytes=o.page_bytes),
            survey=lambda o: ndjson.surveyor(page_bytes=o.page_bytes, max_line_bytes=o.max_line_bytes),
            words=("encoding", "infer"),
        ),
        Format(
            "json",
            ("application/json",),
            (".json",),
            "rows",
            True,
            None,
            lambda o: json.writer(page_bytes=o.page_bytes),
        ),
        Format(
            "arrow",
            ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"),
            (".arrow", ".arrows", ".feather", ".ipc"),
            "rows",
            False,
            lambda o: arrow.reader(page_bytes=o.page_bytes, max_message_bytes=o.whole_bytes),
            lambda _: arrow.writer(),
        ),
        Format(
            "parquet",
            ("application/vnd.apache.parquet", "application/x-parquet"),
            (".parquet", ".pq"),
            "rows",
            False,
            None,
            lambda o: parquet.writer(
                page_bytes=o.page_bytes, row_group_bytes=_ROW_GROUP_PAGES * o.page_bytes, compression=o.compression
            ),
            lambda input, o: parquet_scan.pages(
                input,
                page_bytes=o.page_bytes,
                memory_bytes=o.whole_bytes,
                needs=o.needs,
                passed_over=o.passed_over,
                scan_grows=o.scan_grows,
            ),
        ),
    )
}
ALIASES = {"jsonl": "ndjson"}

READABLE = tuple(name for name, format in FORMATS.items() if format.read or format.read_file)


def find_format(name: str) -> Format:
    """The format called ``name``; ``unknown_format`` that lists them all otherwise."""
    try:
        return FORMATS[ALIASES.get(name, name)]
    except KeyError:
        raise Refusal("unknown_format", f"{name[:80]!r} is not a format; known are {known(FORMATS)}") from None


def format_of_media_type(media_type: str) -> Format | None:
    """The format whose media type (without parameters) this is."""
    return next((format for format in FORMATS.values() if media_type.lower() in format.media_types), None)


def format_of_file_name(file_name: str) -> Format | None:
    """The format that the file name's ending tells."""
    return next((format for format in FORMATS.values() if file_name.lower().endswith(format.suffixes)), None)


def sniff(start: bytes, charset: str | None = None) -> Format:
    """The format that a file with rows begins like: Parquet and Arrow by their magic, JSON by its brace, else CSV, or
    TSV if the first line has tabs and no comma. ``charset``: it is text in that, and not UTF-8."""
    if charset is not None:
        start = start.decode(charset, "replace").encode()
    if start[:4] == b"PAR1":
        return FORMATS["parquet"]
    if start[:6] == b"ARROW1" or start[:4] == b"\xff\xff\xff\xff":
        return FORMATS["arrow"]
    if start[:2] == b"\x1f\x8b" or start[:4] == b"\x28\xb5\x2f\xfd":
        codec = "gzip" if start[:2] == b"\x1f\x8b" else "zstd"
        raise Refusal(
            "unknown_format",
            f"the body is {codec}-compressed: say Content-Encoding: {codec}, or decompress={codec} and from=FORMAT",
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"{":
        return FORMATS["ndjson"]
    if text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"]"):
        raise Refusal(
            "unknown_format", "the body is a JSON array: send an object a line instead (jq -c '.[]'), as ndjson"
        )
    first_line = text.split(b"\n", 1)[0]
    return FORMATS["tsv" if b"\t" in first_line and b"," not in first_line else "csv"]
