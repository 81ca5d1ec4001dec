"""What is tried again and what not, how often, after which waits, and what it is that is sent again."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.stores import s3
from app.stores.memory import MemoryStore
from app.stores.objects import (
    NoSuchUpload,
    ObjectInfo,
    ObjectStore,
    OpenUpload,
    Piece,
    SentPart,
    Transient,
    TransientReason,
    Writing,
)
from app.stores.retried import Patience, Retried
from app.stores.s3 import S3Bucket, S3Client, S3Options

T = TypeVar("T")

DATA = random.Random(5).randbytes(3000)
CRC32 = zlib.crc32(DATA)
MINE = Writing("mine", "text/plain")
NOT_AGAIN = ("not_found", "forbidden", "precondition_failed", "object_changed", "store_failed")


class Clock(threading.Event):
    """A ``stop`` that tells how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits_s.append(timeout)
        return self.is_set()


class Failing(MemoryStore):
    """Raises what stands in ``before`` instead of the next calls, and what stands in ``after`` behind those that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.calls: list[str] = []
        self.bodies: list[bytes] = []

    def _do(self, name: str, call: Callable[[], T]) -> T:
        self.calls.append(name)
        if self.before:
            raise self.before.pop(0)
        made = call()
        if self.after:
            raise self.after.pop(0)
        return made

    def head(self, key: str) -> ObjectInfo:
        return self._do("head", lambda: super(Failing, self).head(key))

    def put(self, key: str, pieces: Sequence[Piece], crc32: int, writing: Writing) -> ObjectInfo:
        self.bodies.append(b"".join(pieces))
        return self._do("put", lambda: super(Failing, self).put(key, pieces, crc32, writing))

    def begin(self, key: str, writing: Writing) -> str:
        return self._do("begin", lambda: super(Failing, self).begin(key, writing))

    def put_part(
        self, key: str, upload_id: str, number: int, offset: int, pieces: Sequence[Piece], crc32: int
    ) -> SentPart:
        self.bodies.append(b"".join(pieces))
        return self._do(
            "put_part", lambda: super(Failing, self).put_part(key, upload_id, number, offset, pieces, crc32)
        )

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart], writing: Writing) -> ObjectInfo:
        return self._do("complete", lambda: super(Failing, self).complete(key, upload_id, parts, writing))

    def abort(self, key: str, upload_id: str) -> None:
        self._do("abort", lambda: super(Failing, self).abort(key, upload_id))

    def uploads(self, prefix: str) -> list[OpenUpload]:
        return self._do("uploads", lambda: super(Failing, self).uploads(prefix))

    def delete(self, key: str) -> None:
        self._do("delete", lambda: super(Failing, self).delete(key))


class Bench:
    """A store with an object ``there`` and an upload to ``k``, and a look at how it is tried."""

    def __init__(self, patience: Patience | None = None, stop: threading.Event | None = None) -> None:
        self.store, self.clock, self.reasons = Failing(), stop or Clock(), list[TransientReason]()
        self.retried = Retried(self.store, patience or Patience(), self.reasons.append, self.clock)
        self.etag = self.store.put("there", [DATA], CRC32, MINE).etag
        self.upload_id = self.store.begin("k", MINE)
        self.part = self.store.put_part("k", self.upload_id, 1, 0, [DATA], CRC32)
        self.store.calls.clear()
        self.store.bodies.clear()

    @property
    def waits_s(self) -> list[float]:
        assert isinstance(self.clock, Clock)
        return self.clock.waits_s

    def call(self, name: str) -> object:
        retried = self.retried
        calls: dict[str, Callable[[], object]] = {
            "head": lambda: retried.head("there"),
            "put": lambda: retried.put("new", cut(DATA), CRC32, MINE),
            "begin": lambda: retried.begin("begun", MINE),
            "put_part": lambda: retried.put_part("k", self.upload_id, 2, 3000, cut(DATA), CRC32),
            "complete": lambda: retried.complete("k", self.upload_id, [self.part], MINE),
            "abort": lambda: retried.abort("k", self.upload_id),
            "uploads": lambda: retried.uploads(""),
            "delete": lambda: retried.delete("there"),
        }
        return calls[name]()


CALLS = ("head", "put", "begin", "put_part", "complete", "abort", "uploads", "delete")


def cut(data: bytes) -> list[Piece]:
    return [data[:7], bytearray(data[7:1000]), b"", memoryview(data)[1000:]]


def slow_down() -> Transient:
    return Transient("slow_down", "as asked")


@pytest.mark.parametrize("name", CALLS)
def test_what_may_pass_is_tried_again(name: str) -> None:
    bench = Bench()
    reasons: list[TransientReason] = ["slow_down", "server_error", "timeout", "reset", "digest", "expired", "conflict"]
    bench.store.before = [Transient(reason, "as asked") for reason in reasons]
    bench.call(name)
    assert [each for each in bench.store.calls if each == name] == [name] * 8
    assert (bench.reasons, len(bench.waits_s)) == (reasons, 7)


@pytest.mark.parametrize("name", CALLS)
def test_what_stays_as_it_is_is_not(name: str) -> None:
    for error in (*(Refusal(code, "as asked") for code in NOT_AGAIN), NoSuchUpload(), ZeroDivisionError()):
        bench = Bench()
        bench.store.before = [error]
        with pytest.raises(type(error)) as raised:
            bench.call(name)
        assert raised.value is error
        assert (bench.store.calls, bench.waits_s, bench.reasons) == ([name], [], [])


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("attempts", [1, 2, 8])
def test_it_is_tried_so_often_and_no_more(name: str, attempts: int) -> None:
    bench = Bench(Patience(attempts))
    bench.store.before = [slow_down() for _ in range(attempts)]
    with pytest.raises(Refusal, match=rf"as asked \({attempts} attempts\)") as refused:
        bench.call(name)
    assert refused.value.code == "store_failed"
    assert [each for each in bench.store.calls if each == name] == [name] * attempts
    assert (len(bench.waits_s), len(bench.reasons)) == (attempts - 1, attempts - 1)


@given(st.integers(1, 40), st.floats(0, 10), st.floats(0, 100))
def test_waits_are_within_bounds_that_double_up_to_the_most(attempts: int, base_s: float, most_s: float) -> None:
    bench = Bench(Patience(attempts, base_s, most_s))
    bench.store.before = [slow_down() for _ in range(attempts)]
    with pytest.raises(Refusal):
        bench.call("head")
    for number, wait_s in enumerate(bench.waits_s):
        assert 0 <= wait_s <= min(most_s, base_s * 2.0**number)


def test_waits_are_spread_over_all_of_their_bounds() -> None:
    """Full jitter: of many who failed at the same time no two come back together."""
    random.seed(1)
    patience = Patience(4, 1.0, 3.0)
    for failures, most_s in ((1, 1.0), (2, 2.0), (3, 3.0), (9, 3.0)):
        waits_s = sorted(patience.wait_s(failures) / most_s for _ in range(1000))
        assert len(set(waits_s)) == 1000
        for tenth in range(10):
            assert 50 < sum(tenth / 10 <= wait_s < (tenth + 1) / 10 for wait_s in waits_s) < 150


@pytest.mark.parametrize("name", ["put", "put_part"])
def test_a_body_is_sent_again_from_its_beginning(name: str) -> None:
    bench = Bench()
    bench.store.before = [slow_down(), Transient("digest", "as asked")]
    bench.store.after = [Transient("reset", "as asked")]
    bench.call(name)
    assert bench.store.bodies == [DATA] * 4


class Waiting(threading.Event):
    """A ``stop`` that tells when somebody waits for it, who then does so for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_for.set()
        return super().wait(60)


@pytest.mark.parametrize("name", [*CALLS, "read"])
def test_who_waits_between_two_attempts_is_stopped_at_once(name: str) -> None:
    stop = Waiting()
    bench = Bench(stop=stop)
    bench.store.before = [slow_down(), slow_down()]
    breaking = Retried(Breaking(DATA, [0, 0]), Patience(), lambda _: None, stop)
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(lambda: bench.call(name) if name != "read" else whole(breaking, DATA))
        assert stop.waited_for.wait(10)
        stop.set()
        with pytest.raises(Refusal) as refused:
            ended.result(10)
    assert refused.value.code == "cancelled"
    assert [each for each in bench.store.calls if each == name] == ([name] if name != "read" else [])


@pytest.mark.parametrize("name", CALLS)
def test_after_the_stop_there_is_one_attempt(name: str) -> None:
    """What cleans up is called then, and mostly succeeds."""
    bench = Bench()
    bench.clock.set()
    bench.call(name)
    bench = Bench()
    bench.clock.set()
    bench.store.before = [slow_down()]
    with pytest.raises(Refusal) as refused:
        bench.call(name)
    assert refused.value.code == "cancelled"


# Reading: a stream is never begun again, it goes on.


class Breaking(MemoryStore):
    """Breaks off behind so many bytes as ``breaks`` says of each attempt; those that follow do not."""

    def __init__(self, data: bytes, breaks: Sequence[int]) -> None:
        super().__init__()
        self.etag = self.put("k", [data], zlib.crc32(data), MINE).etag
        self.breaks = list(breaks)
        self.asked: list[tuple[int, int]] = []

    def read(self, key: str, *, offset: int, nbytes: int, etag: str, piece_bytes: int) -> Iterator[bytes]:
        self.asked.append((offset, nbytes))
        given, most = 0, self.breaks.pop(0) if self.breaks else nbytes
        for piece in super().read(key, offset=offset, nbytes=nbytes, etag=etag, piece_bytes=piece_bytes):
            if given + len(piece) > most:
                if most > given:
                    yield piece[: most - given]
                raise Transient("reset", "as asked")
            given += len(piece)
            yield piece


def whole(store: ObjectStore, data: bytes, piece_bytes: int = 700) -> bytes:
    etag = store.head("k").etag
    return b"".join(store.read("k", offset=0, nbytes=len(data), etag=etag, piece_bytes=piece_bytes))


@given(
    st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 20), max_size=12), st.integers(1, 9), st.integers(2, 4)
)
def test_reading_goes_on_where_it_broke_off_and_every_byte_renews_the_patience(
    data: bytes, breaks: list[int], piece_bytes: int, attempts: int
) -> None:
    store, clock = Breaking(data, breaks), Clock()
    retried = Retried(store, Patience(attempts), lambda _: None, clock)
    asked, at, failures = [(0, len(data))], 0, 0  # what has to come of it
    for nbytes in breaks:
        if at + nbytes >= len(data) or failures == attempts:
            break
        at += nbytes
        failures = 1 if nbytes else failures + 1
        if failures < attempts:
            asked.append((at, len(data) - at))
    if failures == attempts:
        with pytest.raises(Refusal, match=f"{attempts} attempts"):
            whole(retried, data, piece_bytes)
    else:
        assert whole(retried, data, piece_bytes) == data
    assert store.asked == asked


def test_two_versions_of_an_object_are_never_read_as_one() -> None:
    store, clock = Breaking(DATA, [900]), Clock()
    retried = Retried(store, Patience(), lambda _: None, clock)
    reading = retried.read("k", offset=0, nbytes=3000, etag=store.etag, piece_bytes=500)
    assert next(reading) + next(reading) == DATA[:900]
    store.put("k", [DATA[::-1]], zlib.crc32(DATA[::-1]), MINE)
    with pytest.raises(Refusal) as refused:
        next(reading)
    assert (refused.value.code, len(clock.waits_s)) == ("object_changed", 1)


# Writes whose answer is lost.


@pytest.mark.parametrize("name", ["put", "complete"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_was_made_counts_though_nobody_said_so(name: str, overwrite: bool) -> None:
    bench = Bench()
    writing = Writing("mine", "text/plain", None, overwrite)
    bench.store.after = [Transient("reset", "lost")]
    if name == "put":
        made = bench.retried.put("new", cut(DATA), CRC32, writing)
    else:
        made = bench.retried.complete("k", bench.upload_id, [bench.part], writing)
    assert made.etag == bench.store.head(made.key).etag
    assert bench.store.uploads("new") == []


@pytest.mark.parametrize("made_by", ["nobody", "another"])
@pytest.mark.parametrize("end", ["no_upload", "forbidden", "impatient", "hidden"])
def test_what_another_made_does_not_count(made_by: str, end: str) -> None:
    """And what is told is why the write failed, not what its proof said."""
    bench = Bench(Patience(2))
    if made_by == "another":
        bench.store.put("k", [DATA], CRC32, Writing("another", "text/plain"))
    bench.store.before = [
        slow_down(),
        {"no_upload": NoSuchUpload(), "forbidden": Refusal("forbidden", "as asked")}.get(end, slow_down()),
    ]
    if end == "hidden":  # as S3 tells who may not list: whether there is such an object is not said
        bench.store.before.append(Refusal("forbidden", "hidden"))
    with pytest.raises((NoSuchUpload, Refusal)) as raised:
        bench.call("complete")
    if end == "no_upload":
        assert isinstance(raised.value, NoSuchUpload)
    else:
        assert isinstance(raised.value, Refusal)
        assert raised.value.code == ("forbidden" if end == "forbidden" else "store_failed")
        assert "as asked" in raised.value.detail


def test_uploads_that_were_begun_and_nobody_said_so_are_aborted_and_no_others() -> None:
    bench = Bench()
    store = bench.store
    earlier, longer, other = (store.begin(key, MINE) for key in ("begun", "begun/longer", "other"))
    store._uploads[earlier].began_at -= 60
    store.after = [Transient("reset", "lost"), Transient("timeout", "lost")]
    upload_id = bench.call("begin")
    assert {each.upload_id for each in store.uploads("")} == {bench.upload_id, earlier, longer, other, upload_id}


def test_an_upload_to_the_same_object_that_another_began_meanwhile_is_left_alone() -> None:
    bench = Bench()
    store = bench.store
    anothers = store.begin("begun", Writing("another", "text/plain"))
    told: list[set[str] | None] = [None, None, {anothers}]  # it is just beginning, and then known
    asked: list[tuple[str, str]] = []

    def others(url: str, token: str) -> set[str] | None:
        asked.append((url, token))
        return told.pop(0)

    store.after = [Transient("reset", "lost")]
    retried = Retried(store, Patience(), bench.reasons.append, bench.clock, others)
    upload_id = retried.begin("begun", MINE)
    assert {each.upload_id for each in store.uploads("begun")} == {anothers, upload_id}
    assert asked == [("memory:begun", "mine")] * 3
    assert bench.reasons == ["reset", "conflict", "conflict"]


def test_where_nobody_can_tell_whose_an_upload_is_it_stays_and_the_write_does_not_begin() -> None:
    bench = Bench()
    store = bench.store
    anothers = store.begin("begun", Writing("another", "text/plain"))
    store.after = [Transient("reset", "lost")]
    retried = Retried(store, Patience(3), bench.reasons.append, bench.clock, lambda url, token: None)
    with pytest.raises(Refusal, match=r"cannot be told yet \(3 attempts\)"):
        retried.begin("begun", MINE)
    assert anothers in {each.upload_id for each in store.uploads("begun")}


# What S3 says, over a socket.


class Answers:
    """A server that gives ``script`` as its answers, one by one, and then says yes."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.bodies: list[bytes] = []
        self.released = threading.Event()
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                answers.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                said = answers.script.pop(0) if answers.script else "200"
                if said == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                if said == "silence":
                    answers.released.wait(30)
                    self.close_connection = True
                    return
                status, _, code = said.partition(" ")
                body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode() if code else b""
                self.send_response(int(status))
                self.send_header("Content-Length", str(len(body)))
                if status == "200" and not code:
                    self.send_header("ETag", '"etag"')
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = "http://{}:{}".format(*self.server.server_address)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3, "_READ_S", 1.0)
    made = Answers()
    serving = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield made
    made.released.set()
    made.server.shutdown()
    made.server.server_close()
    serving.join()


@pytest.fixture
def bucket(answers: Answers) -> Iterator[tuple[Retried, list[TransientReason]]]:
    client, reasons = S3Client(S3Options(endpoint_url=answers.endpoint_url, addressing="path")), list[TransientReason]()
    yield Retried(S3Bucket(client, "bucket"), Patience(4), reasons.append, Clock()), reasons
    client.close()


def send(store: ObjectStore, name: str) -> object:
    if name == "put":
        return store.put("k", cut(DATA), CRC32, MINE)
    return store.put_part("k", "upload", 1, 0, cut(DATA), CRC32)


MAY_PASS: dict[str, TransientReason] = {
    "500 InternalError": "server_error",
    "500": "server_error",
    "502": "server_error",
    "504": "server_error",
    "503 SlowDown": "slow_down",
    "503": "slow_down",
    "429": "slow_down",
    "400 RequestTimeout": "timeout",
    "400 BadDigest": "digest",
    "400 ExpiredToken": "expired",
    "409 OperationAborted": "conflict",
    "200 InternalError": "server_error",
    "200 SlowDown": "slow_down",
    "silence": "timeout",
    "reset": "reset",
}


@pytest.mark.parametrize("name", ["put", "put_part"])
def test_what_s3_says_that_may_pass(answers: Answers, bucket: tuple[Retried, list[TransientReason]], name: str) -> None:
    store, reasons = bucket
    for said, reason in MAY_PASS.items():
        answers.script = [said]
        answers.bodies.clear()
        reasons.clear()
        send(store, name)
        assert (answers.bodies, reasons) == ([DATA, DATA], [reason]), said
        answers.released.set()
        answers.released.clear()


def test_what_s3_says_that_stays_as_it_is(answers: Answers, bucket: tuple[Retried, list[TransientReason]]) -> None:
    store, reasons = bucket
    for said, code in {
        "400 InvalidRequest": "store_failed",
        "400": "store_failed",
        "403 AccessDenied": "forbidden",
        "403 SignatureDoesNotMatch": "forbidden",
        "404 NoSuchBucket": "not_found",
        "405 MethodNotAllowed": "store_failed",
        "412 PreconditionFailed": "precondition_failed",
        "501 NotImplemented": "store_failed",
    }.items():
        answers.script = [said]
        answers.bodies.clear()
        with pytest.raises(Refusal) as refused:
            send(store, "put")
        assert (refused.value.code, len(answers.bodies), reasons) == (code, 1, []), said
    answers.script = ["404 NoSuchUpload"]
    with pytest.raises(NoSuchUpload):
        send(store, "put_part")


def test_s3_that_goes_on_failing_is_left_alone(answers: Answers, bucket: tuple[Retried, list[TransientReason]]) -> None:
    store, reasons = bucket
    answers.script = ["503 SlowDown", "reset", "500 InternalError", "503 SlowDown", "200"]
    with pytest.raises(Refusal, match=r"503 SlowDown.*\(4 attempts\)"):
        send(store, "put_part")
    assert (answers.script, reasons) == (["200"], ["slow_down", "reset", "server_error"])
