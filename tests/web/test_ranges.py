from __future__ import annotations

import itertools
from email import message_from_bytes
from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.web.ranges import Answer, Slice, decide

FILE = bytes(range(256)) * 4
ETAG = '"kept,1"'
MEDIA_TYPE = "application/x-test"
MODIFIED_AT = 784111777.9
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
RFC_850, ASCTIME = "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"
BASE = {"accept-ranges": "bytes", "etag": ETAG, "last-modified": MODIFIED}


def ask(headers: dict[str, str] | Headers, *, method: str = "GET", file: bytes = FILE) -> Answer:
    answer = decide(method, headers, nbytes=len(file), etag=ETAG, modified_at=MODIFIED_AT, media_type=MEDIA_TYPE)
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names)
    return answer


def head(answer: Answer) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answer.headers}


def body(answer: Answer, file: bytes = FILE) -> bytes:
    for piece in answer.pieces:
        assert isinstance(piece, bytes) or (piece.nbytes > 0 and 0 <= piece.offset <= len(file) - piece.nbytes)
    parts = [p if isinstance(p, bytes) else file[p.offset : p.offset + p.nbytes] for p in answer.pieces]
    return b"".join(parts)


def parts_of(answer: Answer, file: bytes = FILE) -> list[tuple[Message, bytes]]:
    kind = head(answer)["content-type"]
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body(answer, file))
    assert message.is_multipart()
    assert not message.defects
    assert not message.preamble
    assert not message.epilogue
    found = []
    for part in message.get_payload():
        assert isinstance(part, Message)
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found.append((part, payload))
    return found


def range_head(first: int, last: int, nbytes: int) -> dict[str, str]:
    told = {"content-length": str(last - first + 1), "content-range": f"bytes {first}-{last}/{nbytes}"}
    return BASE | told | {"content-type": MEDIA_TYPE}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 1023),
        ("bytes=1023-", 1023, 1023),
        ("bytes=10-20", 10, 20),
        ("bytes=1000-1024", 1000, 1023),
        ("bytes=1000-999999999999999999", 1000, 1023),
        ("bytes=000-0005", 0, 5),
        ("BYTES=5-6", 5, 6),
        ("bytes=-1", 1023, 1023),
        ("bytes=-1024", 0, 1023),
        ("bytes=-5000", 0, 1023),
        ("bytes= \t5-6 \t", 5, 6),
        ("bytes=,, 5-6 ,", 5, 6),
        ("bytes=5-6,2000-", 5, 6),
        ("bytes=-0,5-6", 5, 6),
        ("bytes=5-9,0-4", 0, 9),
        ("bytes=5-9,7-7", 5, 9),
        ("bytes=8-11,0-3,4-7", 0, 11),
        ("bytes=" + ",".join(["0-"] * 16), 0, 1023),
    ],
)
def test_one_range(asked: str, first: int, last: int) -> None:
    answer = ask({"range": asked})
    assert answer.status == 206
    assert head(answer) == range_head(first, last, len(FILE))
    assert answer.pieces == (Slice(first, last - first + 1),)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "bytes",
        "bytes=",
        "bytes= , ,",
        "bytes=-",
        "bytes=5",
        "bytes=6-5",
        "bytes=0-1,6-5",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1 - 2",
        "bytes=1--2",
        "bytes=--2",
        "bytes=1_0-20",
        "bytes=\u0661-\u0662",
        "bytes=0-1;2-3",
        "bytes=0-1\n",
        "bytes =0-1",
        "bytes=0-1,bytes=3-4",
        "lines=0-1",
        "bytes=0-1000000000000000000",
        "bytes=0000000000000000000-1",
        "bytes=-1000000000000000000",
        "bytes=" + ",".join(["0-1"] * 17),
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2)),
        "bytes=" + ",".join(["5000-"] * 17),
    ],
)
def test_ranges_that_are_ignored(asked: str) -> None:
    answer = ask({"range": asked})
    assert answer.status == 200
    assert head(answer) == BASE | {"content-length": "1024", "content-type": MEDIA_TYPE}
    assert answer.pieces == (Slice(0, 1024),)


@pytest.mark.parametrize(
    ("asked", "file"),
    [
        ("bytes=1024-", FILE),
        ("bytes=1024-2000,-0", FILE),
        ("bytes=-0", FILE),
        ("bytes=0-", b""),
        ("bytes=0-0", b""),
        ("bytes=-0", b""),
        ("bytes=-5", b""),
    ],
)
def test_ranges_that_cannot_be_satisfied(asked: str, file: bytes) -> None:
    answer = ask({"range": asked}, file=file)
    assert answer.status == 416
    assert head(answer) == BASE | {"content-length": "0", "content-range": f"bytes */{len(file)}"}
    assert answer.pieces == ()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=0-1,3-4", [(0, 1), (3, 4)]),
        ("bytes=3-4,0-1", [(3, 4), (0, 1)]),
        ("bytes=-1, 0-0", [(1023, 1023), (0, 0)]),
        ("bytes=3-4,0-1,5-6", [(3, 6), (0, 1)]),
        ("bytes=0-1,5-6,2-2", [(0, 2), (5, 6)]),
        ("bytes=5-6,0-1,4-4", [(4, 6), (0, 1)]),
        ("bytes=9-9,0-0,5-5,9999-", [(9, 9), (0, 0), (5, 5)]),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 32, 2)), [(n, n) for n in range(0, 32, 2)]),
    ],
)
def test_several_ranges(asked: str, found: list[tuple[int, int]]) -> None:
    answer = ask({"range": asked})
    told = head(answer)
    assert answer.status == 206
    assert "content-range" not in told
    assert int(told["content-length"]) == len(body(answer))
    parts = parts_of(answer)
    assert [content for _, content in parts] == [FILE[first : last + 1] for first, last in found]
    assert [part.items() for part, _ in parts] == [
        [("Content-Type", MEDIA_TYPE), ("Content-Range", f"bytes {first}-{last}/1024")] for first, last in found
    ]


def test_the_bytes_of_a_multipart_body() -> None:
    answer = ask({"range": "bytes=1020-,0-1"})
    prefix, _, boundary = head(answer)["content-type"].partition("boundary=")
    assert prefix == "multipart/byteranges; "
    assert boundary.encode() not in body(ask({"range": "bytes=1020-,0-1"}))
    opening = f"--{boundary}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Range: "
    assert answer.pieces == (
        f"{opening}bytes 1020-1023/1024\r\n\r\n".encode(),
        Slice(1020, 4),
        f"\r\n{opening}bytes 0-1/1024\r\n\r\n".encode(),
        Slice(0, 2),
        f"\r\n--{boundary}--\r\n".encode(),
    )


def test_lines_of_a_field_are_joined() -> None:
    twice = Headers(raw=[(b"range", b"bytes=0-1"), (b"range", b"3-4")])
    assert [content for _, content in parts_of(ask(twice))] == [FILE[:2], FILE[3:5]]
    assert ask(Headers(raw=[(b"range", b"bytes=0-1")] * 2)).status == 200
    tags = Headers(raw=[(b"if-none-match", b'"other"'), (b"if-none-match", ETAG.encode())])
    assert ask(tags).status == 304
    assert ask(Headers(raw=[(b"if-modified-since", MODIFIED.encode())] * 2)).status == 200


YES, NO, WEAK = ETAG, '"kept"', "W/" + ETAG


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if-match": YES}, 200),
        ({"if-match": f"{NO}, {YES}"}, 200),
        ({"if-match": f',"a,b" ,\t{YES},'}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": NO}, 412),
        ({"if-match": WEAK}, 412),
        ({"if-match": WEAK.lower()}, 412),
        ({"if-match": YES.strip('"')}, 412),
        ({"if-match": f"x{YES}"}, 412),
        ({"if-match": ""}, 412),
        ({"if-unmodified-since": MODIFIED}, 200),
        ({"if-unmodified-since": LATER}, 200),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-unmodified-since": "yesterday"}, 200),
        ({"if-unmodified-since": f"{EARLIER}, {EARLIER}"}, 200),
        ({"if-match": YES, "if-unmodified-since": EARLIER}, 200),
        ({"if-match": NO, "if-unmodified-since": LATER}, 412),
        ({"if-match": NO, "if-none-match": YES}, 412),
        ({"if-match": YES, "if-none-match": YES}, 304),
        ({"if-unmodified-since": EARLIER, "if-modified-since": LATER}, 412),
        ({"if-unmodified-since": LATER, "if-modified-since": LATER}, 304),
        ({"if-none-match": YES}, 304),
        ({"if-none-match": WEAK}, 304),
        ({"if-none-match": f"{NO},{WEAK}"}, 304),
        ({"if-none-match": " * "}, 304),
        ({"if-none-match": NO}, 200),
        ({"if-none-match": f'"x{YES}'}, 200),
        ({"if-none-match": ""}, 200),
        ({"if-none-match": NO, "if-modified-since": MODIFIED}, 200),
        ({"if-modified-since": MODIFIED}, 304),
        ({"if-modified-since": LATER}, 304),
        ({"if-modified-since": RFC_850}, 304),
        ({"if-modified-since": ASCTIME}, 304),
        ({"if-modified-since": EARLIER}, 200),
        ({"if-modified-since": "784111777"}, 200),
        ({"if-modified-since": "Sun, 06 Nov 1994 08:49:37 +0000"}, 200),
        ({"if-modified-since": "Sun, 31 Nov 1994 08:49:37 GMT"}, 200),
        ({"range": "bytes=0-0"}, 206),
        ({"range": "bytes=0-0", "if-none-match": YES}, 304),
        ({"range": "bytes=0-0", "if-match": NO}, 412),
        ({"range": "bytes=0-0", "if-none-match": NO}, 206),
        ({"range": "bytes=5000-", "if-none-match": YES}, 304),
        ({"range": "bytes=0-0", "if-range": YES}, 206),
        ({"range": "bytes=0-0", "if-range": NO}, 200),
        ({"range": "bytes=0-0", "if-range": WEAK}, 200),
        ({"range": "bytes=0-0", "if-range": f"{YES}, {YES}"}, 200),
        ({"range": "bytes=0-0", "if-range": "*"}, 200),
        ({"range": "bytes=0-0", "if-range": ""}, 200),
        ({"range": "bytes=0-0", "if-range": MODIFIED}, 206),
        ({"range": "bytes=0-0", "if-range": RFC_850}, 206),
        ({"range": "bytes=0-0", "if-range": LATER}, 200),
        ({"range": "bytes=0-0", "if-range": EARLIER}, 200),
        ({"range": "bytes=5000-", "if-range": NO}, 200),
        ({"range": "bytes=5000-", "if-range": YES}, 416),
        ({"if-range": NO}, 200),
    ],
)
def test_preconditions(headers: dict[str, str], status: int) -> None:
    answer = ask(headers)
    assert answer.status == status
    if status == 304:
        assert head(answer) == {"etag": ETAG}
    if status == 412:
        assert head(answer) == BASE | {"content-length": "0"}
    assert bool(answer.pieces) == (status in (200, 206))

    bare = ask(headers, method="HEAD")
    without_range = ask({name: value for name, value in headers.items() if name != "range"})
    assert (bare.status, bare.headers, bare.pieces) == (without_range.status, without_range.headers, ())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"range": "bytes=0-0", "if-modified-since": LATER}, 200),
        ({"if-none-match": NO, "if-match": YES}, 200),
        ({"if-none-match": WEAK}, 412),
        ({"if-match": NO}, 412),
        ({"if-unmodified-since": EARLIER}, 412),
    ],
)
def test_other_methods_are_judged_by_their_preconditions(headers: dict[str, str], status: int) -> None:
    answer = ask(headers, method="DELETE")
    assert (answer.status, answer.pieces) == (status, ())


def test_an_empty_file() -> None:
    answer = ask({"range": "lines=1-"}, file=b"")
    assert (answer.status, answer.pieces) == (200, ())
    assert head(answer) == BASE | {"content-length": "0", "content-type": MEDIA_TYPE}


def positions(spec: tuple[int | None, int | None], nbytes: int) -> set[int]:
    """The model: every byte of the file is looked at by itself."""
    first, last = spec
    if first is None:
        assert last is not None
        return {at for at in range(nbytes) if nbytes - at <= last}
    return {at for at in range(nbytes) if first <= at and (last is None or at <= last)}


def runs(specs: list[tuple[int | None, int | None]], nbytes: int) -> list[list[int]]:
    """Maximal runs of wanted bytes, in the order in which they were first asked for."""
    asked = [positions(spec, nbytes) for spec in specs]
    wanted = sorted(set().union(*asked))
    found = [[at for _, at in run] for _, run in itertools.groupby(enumerate(wanted), lambda pair: pair[1] - pair[0])]
    return sorted(found, key=lambda run: next(place for place, some in enumerate(asked) if some & set(run)))


def written(spec: tuple[int | None, int | None]) -> str:
    return "-".join("" if number is None else str(number) for number in spec)


INT_RANGE = st.tuples(st.integers(0, 70), st.none() | st.integers(0, 20)).map(
    lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
)
SUFFIX = st.tuples(st.none(), st.integers(0, 70))


@given(st.binary(max_size=64), st.lists(INT_RANGE | SUFFIX, min_size=1, max_size=16))
@example(b"\r\n--\r\n\r", [(6, 6), (0, 1), (3, 4)])
def test_any_ranges_of_any_file(file: bytes, specs: list[tuple[int | None, int | None]]) -> None:
    answer = ask({"range": "bytes=" + ", ".join(map(written, specs))}, file=file)
    told, sent, expected = head(answer), body(answer, file), runs(specs, len(file))
    assert int(told["content-length"]) == len(sent)
    if not expected:
        assert (answer.status, told["content-range"], sent) == (416, f"bytes */{len(file)}", b"")
        return
    assert answer.status == 206
    labels = [f"bytes {run[0]}-{run[-1]}/{len(file)}" for run in expected]
    contents = [bytes(file[at] for at in run) for run in expected]
    if len(expected) == 1:
        assert (told["content-range"], sent) == (labels[0], contents[0])
        return
    parts = parts_of(answer, file)
    assert [(part["content-range"], content) for part, content in parts] == list(zip(labels, contents, strict=True))


NOISE = st.text(st.sampled_from('bytes=0123456789-, \t*W/"') | st.characters(max_codepoint=255), max_size=40)
NAMES = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@given(
    st.dictionaries(st.sampled_from(NAMES), NOISE | st.sampled_from([YES, WEAK, MODIFIED, "bytes=0-9,20-"])),
    st.sampled_from(["GET", "HEAD"]),
)
def test_any_headers_get_an_answer(headers: dict[str, str], method: str) -> None:
    answer = ask(headers, method=method)
    assert answer.status in (200, 206, 304, 412, 416)
    if method == "GET" and answer.status != 304:
        assert int(head(answer)["content-length"]) == len(body(answer))
    if method == "HEAD":
        assert answer.pieces == ()
