"""A user's words become a plan: URL and document alike, with what is wrong named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from app.core.errors import Refusal
from app.plan import (
    Allowance,
    BuildOptions,
    Built,
    build,
    build_within,
    plan_of_document,
    plan_of_query,
    sniff,
    with_pipeline,
)
from app.stages.sql import Query
from app.stages.sql_engine import QueryOptions

OPTIONS = BuildOptions(
    page_bytes=1 << 20,
    max_line_bytes=1 << 20,
    max_expansion=100,
    whole_bytes=64 << 20,
    query=QueryOptions(1 << 20, 1, 64 << 20),
)


def built(query: str, **extra: Any) -> Built:
    items = [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
    return build(plan_of_query(items), OPTIONS, **extra)


def names(query: str, **extra: Any) -> list[str]:
    return [stage.name for stage in built(query, **extra).stages]


def test_a_url_and_a_document_spell_the_same_plan() -> None:
    query = plan_of_query(
        [
            ("from", "csv"),
            ("where", "a > 1"),
            ("limit", "5"),
            ("replace", r"/a\/b/c/"),
            ("to", "ndjson"),
            ("types", "a:int"),
        ]
    )
    document = plan_of_document(
        {
            "from": "csv",
            "to": "jsonl",
            "types": {"a": "int"},
            "steps": [{"where": "a > 1"}, {"limit": 5}, {"replace": {"regex": "a/b", "text": "c"}}],
        }
    )
    assert query.describe() == document.describe()
    assert query.types == document.types
    assert plan_of_document({"steps": ["upper", {"lower": None}]}).describe() == "upper&lower"


def test_how_a_text_is_written_is_said_alike_in_a_url_and_a_document() -> None:
    query = plan_of_query([("header", "false"), ("null", "NULL,NA"), ("delimiter", ";"), ("infer", "full")])
    document = plan_of_document({"header": False, "null": ["NULL", "NA"], "delimiter": ";", "infer": "full"})
    assert (
        query.reading
        == document.reading
        == {
            "header": "false",
            "null": "NULL,NA",
            "delimiter": ";",
            "infer": "full",
        }
    )
    stored = plan_of_document({"header": False, "encoding": "latin-1", "types": {"a": "int"}})
    both = with_pipeline(plan_of_query([("pipeline", "x"), ("header", "true"), ("types", "b:int")]), stored)
    assert both.reading == {"header": "true", "encoding": "latin-1"}
    assert set(both.types) == {"a", "b"}


def test_text_is_decoded_once_it_is_unpacked_and_before_anything_else() -> None:
    assert names("from=lines&to=lines&upper&encoding=latin-1") == ["transcode", "upper"]
    assert names("from=lines&to=lines&decompress=gzip&upper&encoding=utf-16")[:3] == [
        "decompress",
        "transcode",
        "upper",
    ]
    chain = names("from=csv&upper&where=a>1&to=csv&encoding=latin-1", decode=["gzip"])
    assert chain[:4] == ["decompress", "transcode", "upper", "csv-cut"]
    assert names("from=csv&to=csv&encoding=latin-1") == ["transcode"]
    assert names("from=csv&to=csv&encoding=utf-8") == []
    assert names("from=csv&to=csv&delimiter=;")[0] == "csv-cut"


def test_a_first_pass_is_counted() -> None:
    once, twice = built("from=csv&to=csv&where=a>1"), built("from=csv&to=csv&where=a>1&infer=full")
    assert once.read_file is None
    assert twice.read_file is not None
    assert twice.outside_bytes > OPTIONS.max_line_bytes + 10 * OPTIONS.page_bytes
    assert [stage.name for stage in once.stages] == [stage.name for stage in twice.stages]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "object"),
        ({"steps": "upper"}, "list"),
        ({"steps": [{"upper": "", "lower": ""}]}, "one key"),
        ({"steps": [{"where": {"a": 1}}]}, "text"),
        ({"steps": [{"replace": {"regex": "a"}}]}, "regex, text"),
        ({"steps": [{"limit": [1]}]}, "text or a number"),
        ({"form": "csv"}, "from"),
        ({"steps": ["uper"]}, "upper"),
    ],
)
def test_what_is_wrong_with_a_document(document: object, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        plan_of_document(document)


def test_bytes_pass_through_as_bytes_unless_rows_are_needed() -> None:
    assert names("from=csv&to=csv") == []
    assert names("from=bytes&to=bytes&upper&lower") == ["upper", "lower"]
    assert not built("from=csv&to=csv&upper").rows_in
    assert built("from=csv&to=tsv").rows_in is not None


def test_sql_steps_that_follow_each_other_are_one_query() -> None:
    chain = names("from=csv&where=a>1&derive=a+1 as b&select=b&limit=3&where=b>1&to=csv")
    assert chain.count("sql") == 2


def test_text_steps_stand_on_the_side_where_there_is_text() -> None:
    chain = names("from=parquet&to=csv&upper")
    assert chain.index("upper") == len(chain) - 1
    assert names("from=csv&upper&to=parquet")[0] == "upper"
    assert names("from=csv&decompress=gzip&where=a>1&to=parquet")[0] == "decompress"
    assert names("from=csv&where=a>1&compress=zstd&to=csv")[-1] == "compress"
    assert names("from=csv&to=ndjson&compress=zstd")[-1] == "compress"


def test_codings_go_around_everything() -> None:
    chain = names("from=lines&to=lines&upper", decode=["gzip"], encode="br")
    assert (chain[0], chain[-1]) == ("decompress", "compress")


def test_what_a_compressed_result_is_called() -> None:
    assert built("from=csv&to=csv&compress=gzip").media_type == "application/gzip"
    assert built("from=csv&to=ndjson").media_type == "application/x-ndjson"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=csv&where=a>1&grep=x&where=a>2&to=csv", "between"),
        ("from=csv&where=a>1&decompress=gzip&to=csv", "put it first"),
        ("from=csv&compress=gzip&where=a>1&to=csv", "behind"),
        ("from=parquet&to=parquet&upper", "parquet"),
        ("from=bytes&to=bytes&limit=5", "from=lines"),
        ("from=lines&to=parquet", "rows on both sides"),
        ("from=json&to=csv", "only be written"),
        ("from=lines&to=lines&compress=gzip&upper", "compressed data"),
    ],
)
def test_steps_that_do_not_fit(query: str, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        built(query)


def test_a_stored_pipeline_stands_for_all_steps() -> None:
    stored = plan_of_document({"from": "csv", "to": "ndjson", "steps": ["upper"]})
    asked = plan_of_query([("pipeline", "x"), ("to", "parquet")])
    assert with_pipeline(asked, stored).describe() == "from=csv&upper&to=parquet"
    with pytest.raises(Refusal, match="not both"):
        with_pipeline(plan_of_query([("pipeline", "x"), ("upper", "")]), stored)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"PAR1xx", "parquet"),
        (b"ARROW1\0\0", "arrow"),
        (b"\xff\xff\xff\xff\x10", "arrow"),
        (b'\xef\xbb\xbf {"a":1}', "ndjson"),
        (b"a\tb\n1\t2\n", "tsv"),
        (b"a,b\n", "csv"),
        (b"", "csv"),
    ],
)
def test_what_data_begins_like(start: bytes, name: str) -> None:
    assert sniff(start).name == name


def test_compressed_data_is_told_what_to_say() -> None:
    with pytest.raises(Refusal, match="decompress=gzip"):
        sniff(b"\x1f\x8b\x08")


@pytest.mark.parametrize("start", [b'[{"a":1}]', b"\xef\xbb\xbf [\n  {", b"[]"])
def test_a_json_array_is_not_taken_for_csv(start: bytes) -> None:
    with pytest.raises(Refusal, match="jq"):
        sniff(start)


def test_a_phrase_may_be_an_object() -> None:
    document = {"from": "csv", "steps": [{"aggregate": {"select": "count(*) as n", "by": ["shop", "item"]}}]}
    assert plan_of_document(document).describe() == "from=csv&aggregate=count(*) as n by shop, item"
    with pytest.raises(Refusal, match="aggregate: its argument is a text, or an object with select and perhaps by"):
        plan_of_document({"steps": [{"aggregate": {"by": "a"}}]})


def test_csv_words_and_compression_are_for_their_formats() -> None:
    assert built("from=csv&delimiter=;&to=csv").rows_in is not None  # it is written anew
    assert built("from=csv&to=parquet&compression=zstd").target.name == "parquet"
    with pytest.raises(Refusal, match="header= does not apply to input in ndjson"):
        built("from=ndjson&header=false&to=csv")
    with pytest.raises(Refusal, match="compression is about parquet"):
        built("from=csv&to=csv&compression=zstd")
    with pytest.raises(Refusal, match="not one of snappy, zstd"):
        built("from=csv&to=parquet&compression=rar")


def test_pages_are_smaller_where_those_of_the_server_do_not_fit() -> None:
    allowance = Allowance(nbytes=256 << 20, high_water_bytes=2 << 20, lanes=4)
    for query in (
        "from=csv&replace=/a/b/&to=ndjson",
        "from=csv&where=a>1&replace=/a/b/&to=csv",
        "from=ndjson&sql=from input",
    ):
        items = [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
        plan = plan_of_query([*items, ("to", "csv")] if "to=" not in query else items)
        large, fitted = build(plan, OPTIONS), build_within(allowance, OPTIONS, partial(build, plan))
        assert fitted.least_bytes(allowance) <= allowance.nbytes * 4 // 5
        assert large.least_bytes(allowance) > allowance.nbytes * 4 // 5 or fitted.page_bytes == large.page_bytes
        assert fitted.source_page_bytes == 1 << 20
        tiny = build_within(Allowance(nbytes=1, high_water_bytes=2 << 20, lanes=4), OPTIONS, partial(build, plan))
        assert tiny.page_bytes == 2 * (64 << 10)


def test_larger_pages_of_the_source_leave_those_of_the_flow_nearly_as_large() -> None:
    allowance = Allowance(nbytes=240 << 20, high_water_bytes=2 << 20, lanes=3)
    plan = plan_of_query([("from", "ndjson"), ("where", "a > 1"), ("aggregate", "sum(a) as s by b"), ("to", "csv")])
    sizes = []
    for page_bytes in (1 << 20, 2 << 20, 4 << 20):
        options = replace(OPTIONS, page_bytes=page_bytes, query=replace(OPTIONS.query, page_bytes=page_bytes))
        made = build_within(allowance, options, partial(build, plan))
        assert made.least_bytes(allowance) <= allowance.nbytes * 4 // 5
        sizes.append(made.page_bytes)
    assert sizes[1] >= sizes[0] / 2
    assert sizes[2] >= sizes[0] / 4


def test_where_nothing_cuts_the_pages_of_the_source_they_stay() -> None:
    items = [("from", "csv"), ("upper", ""), ("where", "a > 1"), ("to", "csv")]
    assert build_within(Allowance(1, 2 << 20, 4), OPTIONS, partial(build, plan_of_query(items))).page_bytes == 2 << 20


def test_a_query_gives_memory_up_for_larger_pages_unless_it_was_promised() -> None:
    plan = plan_of_query([("from", "csv"), ("aggregate", "count(*) as n by a"), ("to", "csv")])
    allowance = Allowance(nbytes=256 << 20, high_water_bytes=2 << 20, lanes=3)
    page_bytes, worst_bytes = [], []
    for least_bytes in (0, 96 << 20):
        query = replace(OPTIONS.query, whole_bytes=96 << 20, least_bytes=least_bytes)
        made = build_within(allowance, replace(OPTIONS, query=query), partial(build, plan))
        page_bytes.append(made.page_bytes)
        worst_bytes.append(made.least_bytes(allowance))
        (query_stage,) = [stage for stage in made.stages if isinstance(stage, Query)]
        query_stage.spare(1 << 40)
        assert query_stage.holds > least_bytes
    assert page_bytes[0] == 2 << 20 > page_bytes[1]
    assert max(worst_bytes) <= allowance.nbytes * 4 // 5
