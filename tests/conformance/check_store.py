"""One conformance check for any store of objects: hand it the store and a folder of its own.

check_store(MemoryStore())
check_store(S3Bucket(client, bucket), part_bytes=5 << 20)
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pytest

from app.core.errors import Refusal
from app.stores.objects import TOKEN, NoSuchUpload, ObjectStore, Piece, SentPart, Transient, Writing

KEYS = ("plain", "a/b c/d+e%20f", "ünï/水🙂", "k" * 200)


def check_store(store: ObjectStore, *, part_bytes: int = 1000, is_sent_to: bool = True) -> None:
    """All that ``ObjectStore`` says, and that nothing is left; ``part_bytes`` is a part that the store takes. What
    ``is_sent_to`` verifies the CRC-32 of bodies."""
    for key in KEYS:
        whole(store, key, part_bytes)
        in_parts(store, key, part_bytes)
    uneven_parts(store, part_bytes)
    not_overwritten(store, part_bytes)
    changed(store)
    missing(store)
    if is_sent_to:
        damaged(store, part_bytes)
    many_uploads(store, part_bytes)
    for key in KEYS:
        store.delete(key)
        store.delete(key)  # there is none any more
    assert store.uploads("") == []


def writing(token: str, *, overwrite: bool = True) -> Writing:
    return Writing(token, "text/plain", None, overwrite)


def cut(data: bytes) -> list[Piece]:
    """The same bytes as all kinds of pieces."""
    third = len(data) // 3
    buffer = memoryview(pa.py_buffer(data[2 * third :]))
    return [data[:third], memoryview(bytearray(data[third : 2 * third])), b"", buffer]


def read(store: ObjectStore, key: str, offset: int = 0, nbytes: int | None = None, piece_bytes: int = 700) -> bytes:
    info = store.head(key)
    nbytes = info.nbytes - offset if nbytes is None else nbytes
    pieces = list(store.read(key, offset=offset, nbytes=nbytes, etag=info.etag, piece_bytes=piece_bytes))
    assert all(0 < len(piece) <= piece_bytes for piece in pieces)
    return b"".join(pieces)


@contextlib.contextmanager
def refused(*codes: str) -> Iterator[None]:
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.code in codes


def whole(store: ObjectStore, key: str, part_bytes: int) -> None:
    for size in (0, 1, 3000):
        data = random.Random(size).randbytes(size)
        made = store.put(key, cut(data), zlib.crc32(data), writing(f"token {size}"))
        found = store.head(key)
        assert (found.nbytes, found.etag, found.metadata.get(TOKEN)) == (size, made.etag, f"token {size}")
        assert read(store, key) == data
    assert read(store, key, 100, 1500) == data[100:1600]
    assert read(store, key, 2999, 1) == data[2999:]
    assert key in store.url(key)


def in_parts(store: ObjectStore, key: str, part_bytes: int) -> None:
    data = random.Random(key).randbytes(2 * part_bytes + 7)
    before = store.head(key).etag
    upload_id = store.begin(key, writing("parts"))
    assert [(upload.key, upload.upload_id) for upload in store.uploads(key)] == [(key, upload_id)]
    parts = [send(store, key, upload_id, number, data, part_bytes) for number in (2, 1, 3)]
    again = send(store, key, upload_id, 2, data, part_bytes)  # the same number once more replaces it
    parts[0] = again
    assert store.head(key).etag == before
    made = store.complete(key, upload_id, sorted(parts, key=lambda part: part.number), writing("parts"))
    found = store.head(key)
    assert (found.nbytes, found.etag, found.metadata.get(TOKEN)) == (len(data), made.etag, "parts")
    assert read(store, key, piece_bytes=1 << 20) == data
    assert store.uploads(key) == []
    with pytest.raises(NoSuchUpload):
        store.abort(key, upload_id)


def send(store: ObjectStore, key: str, upload_id: str, number: int, data: bytes, part_bytes: int) -> SentPart:
    start = (number - 1) * part_bytes
    piece = data[start : start + part_bytes]
    sent = store.put_part(key, upload_id, number, start, cut(piece), zlib.crc32(piece))
    assert (sent.number, sent.offset, sent.nbytes, sent.crc32) == (number, start, len(piece), zlib.crc32(piece))
    return sent


def uneven_parts(store: ObjectStore, part_bytes: int) -> None:
    """Sizes grow, and the last part may be of any."""
    data = random.Random(4).randbytes(4 * part_bytes)
    upload_id, parts, start = store.begin("plain", writing("uneven")), [], 0
    for number, size in enumerate((part_bytes, part_bytes + 13, 2 * part_bytes - 14, 1), 1):
        piece = data[start : start + size]
        parts.append(store.put_part("plain", upload_id, number, start, [piece], zlib.crc32(piece)))
        start += size
    store.complete("plain", upload_id, parts, writing("uneven"))
    assert read(store, "plain", piece_bytes=1 << 20) == data


def not_overwritten(store: ObjectStore, part_bytes: int) -> None:
    store.put("plain", [b"first"], zlib.crc32(b"first"), writing("first"))
    with refused("precondition_failed"):
        store.put("plain", [b"second"], zlib.crc32(b"second"), writing("second", overwrite=False))
    upload_id = store.begin("plain", writing("third", overwrite=False))
    data = bytes(part_bytes)
    part = send(store, "plain", upload_id, 1, data, part_bytes)
    with refused("precondition_failed"):
        store.complete("plain", upload_id, [part], writing("third", overwrite=False))
    with contextlib.suppress(NoSuchUpload):
        store.abort("plain", upload_id)
    assert read(store, "plain") == b"first"
    store.delete("plain")
    store.put("plain", [b"fourth"], zlib.crc32(b"fourth"), writing("fourth", overwrite=False))
    assert read(store, "plain") == b"fourth"


def changed(store: ObjectStore) -> None:
    """Pages of two versions are never read as one."""
    store.put("plain", [b"1" * 2000], zlib.crc32(b"1" * 2000), writing("one"))
    etag = store.head("plain").etag
    store.put("plain", [b"2" * 2000], zlib.crc32(b"2" * 2000), writing("two"))
    with refused("object_changed"):
        list(store.read("plain", offset=1000, nbytes=1000, etag=etag, piece_bytes=500))
    store.delete("plain")
    with refused("object_changed", "not_found"):
        list(store.read("plain", offset=0, nbytes=1000, etag=etag, piece_bytes=500))


def missing(store: ObjectStore) -> None:
    with refused("not_found"):
        store.head("nothing/here")
    calls: Sequence[Callable[[], object]] = (
        lambda: store.abort("nothing", "0123456789abcdef"),
        lambda: store.put_part("nothing", "0123456789abcdef", 1, 0, [b"x"], zlib.crc32(b"x")),
    )
    for call in calls:
        with pytest.raises((NoSuchUpload, Refusal)):
            call()


def damaged(store: ObjectStore, part_bytes: int) -> None:
    """What arrives otherwise than it was sent is not taken; it may be sent again."""
    with pytest.raises(Transient) as whole:
        store.put("damaged", [b"what was sent"], zlib.crc32(b"what was meant"), writing("x"))
    upload_id = store.begin("damaged", writing("x"))
    data = bytes(part_bytes)
    with pytest.raises(Transient) as part:
        store.put_part("damaged", upload_id, 1, 0, [data], zlib.crc32(data) ^ 1)
    assert (whole.value.reason, part.value.reason) == ("digest", "digest")
    sent = send(store, "damaged", upload_id, 1, data, part_bytes)
    store.complete("damaged", upload_id, [sent], writing("x"))
    assert read(store, "damaged", piece_bytes=1 << 20) == data
    store.delete("damaged")


def many_uploads(store: ObjectStore, part_bytes: int) -> None:
    """They are told by their key, and ended one by one."""
    ids = {key: store.begin(key, writing(key)) for key in ("up/a", "up/b", "other")}
    assert {upload.key for upload in store.uploads("up/")} == {"up/a", "up/b"}
    send(store, "up/a", ids["up/a"], 1, bytes(part_bytes), part_bytes)
    for key, upload_id in ids.items():
        store.abort(key, upload_id)
        with pytest.raises((NoSuchUpload, Refusal)):
            store.complete(key, upload_id, [SentPart(1, 0, 1, 0, '"x"')], writing(key))
    assert store.uploads("") == []
    with refused("not_found"):
        store.head("up/a")
