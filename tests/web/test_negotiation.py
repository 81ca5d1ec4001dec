from __future__ import annotations

import pytest

from app.core.errors import CODES, Refusal
from app.plan import FORMATS, plan_of_query
from app.web.errors import STATUS
from app.web.negotiation import (
    accepted_coding,
    content_codings,
    file_name_of,
    preferred,
    wants_sha256,
    with_source,
    with_target,
)

PLAIN = plan_of_query([])


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(CODES)


@pytest.mark.parametrize(
    ("content_type", "file_name", "name"),
    [
        ("text/csv; header=present", "x.parquet", "csv"),
        ("application/x-www-form-urlencoded", "", None),
        ("application/octet-stream", "a.NDJSON", "ndjson"),
        ("", "dir%2Fa.parquet", "parquet"),
        ("", "readme", None),
        ("TEXT/PLAIN", "", "lines"),
    ],
)
def test_the_input_format(content_type: str, file_name: str, name: str | None) -> None:
    found = with_source(PLAIN, content_type=content_type, file_name=file_name).source
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("content_type", "query", "reading"),
    [
        ("text/csv; charset=latin-1; header=absent", {}, {"encoding": "latin-1", "header": "false"}),
        ('TEXT/CSV;Charset="UTF-16"; Header=PRESENT', {}, {"encoding": "UTF-16", "header": "true"}),
        ("text/csv; charset=latin-1", {"encoding": "utf-8"}, {"encoding": "utf-8"}),
        ("text/csv; charset=latin-1", {"from": "ndjson"}, {}),
        ("text/plain; charset=latin-1; header=absent", {"from": "ndjson"}, {"encoding": "latin-1"}),
        ("application/x-ndjson; charset=latin-1; header=absent", {}, {"encoding": "latin-1"}),
        ("application/octet-stream; charset=latin-1", {}, {}),
        ("application/vnd.apache.parquet; charset=latin-1", {}, {}),
        ("multipart/form-data; boundary=x; charset=x-none", {}, {}),
    ],
)
def test_how_the_input_is_written(content_type: str, query: dict[str, str], reading: dict[str, str]) -> None:
    found = with_source(plan_of_query(list(query.items())), content_type=content_type, file_name="")
    assert found.reading == reading


@pytest.mark.parametrize("content_type", ["text/csv; charset=none", "text/csv; header=1"])
def test_what_a_content_type_may_not_say(content_type: str) -> None:
    with pytest.raises(Refusal) as caught:
        with_source(PLAIN, content_type=content_type, file_name="")
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", None),
        ("*/*", None),
        ("text/csv", "csv"),
        ("text/csv;q=0.1, application/x-ndjson;q=0.9", "ndjson"),
        ("text/html, */*;q=0.8", None),
        ("text/html, application/json;q=0.5, */*;q=0.1", "json"),
    ],
)
def test_the_output_format(accept: str, name: str | None) -> None:
    found = with_target(PLAIN, accept=accept).target
    assert (found and found.name) == name


def test_what_cannot_be_made() -> None:
    with pytest.raises(Refusal, match="text/csv"):
        with_target(PLAIN, accept="image/png")


def test_codings_are_undone_from_the_outside_in() -> None:
    assert content_codings("gzip, identity, zstd") == ["zstd", "gzip"]
    assert content_codings("X-GZIP") == ["gzip"]
    with pytest.raises(Refusal, match="gzip, zstd, br"):
        content_codings("deflate")


@pytest.mark.parametrize(
    ("header", "name", "coding"),
    [
        ("gzip, br", "csv", "gzip"),
        ("gzip;q=0.5, zstd", "csv", "zstd"),
        ("identity, gzip;q=0.5", "csv", None),
        ("gzip;q=0", "csv", None),
        ("", "csv", None),
        ("gzip", "parquet", None),
        ("gzip", "bytes", None),
        ("sdch", "csv", None),
    ],
)
def test_the_coding_of_a_result(header: str, name: str, coding: str | None) -> None:
    assert accepted_coding(header, FORMATS[name]) == coding


def test_file_names_of_dispositions() -> None:
    assert file_name_of('attachment; filename="a b.csv"') == "a b.csv"
    assert file_name_of("inline") == ""


def test_preferences_and_wanted_digests() -> None:
    assert preferred("wait=10, Respond-Async; foo=bar") == {"wait", "respond-async"}
    assert preferred("") == set()
    assert [
        wants_sha256(header) for header in ("sha-256=1", "sha-512=3, SHA-256=10", "sha-256=0", "sha-512=1", "")
    ] == [
        True,
        True,
        False,
        False,
        False,
    ]
