"""Every store does what a store has to, by itself and with its wrappers."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.errors import Refusal
from app.stores.catalogue import Stores
from app.stores.directory import DirectoryStore
from app.stores.memory import MemoryStore
from app.stores.metered import Metered, PartMeter
from app.stores.objects import ObjectStore, Writing
from app.stores.retried import Patience, Retried
from app.stores.s3 import S3Bucket, S3Client, S3Options
from tests.conformance.check_store import check_store
from tests.object_store.server import ObjectStoreServer

MIB = 1 << 20


class Impatient:
    """A store whose transient failures come out as they are, though it is wrapped."""

    def __init__(self, store: ObjectStore) -> None:
        self.seconds: list[float] = []
        self.meter = PartMeter(self.seconds.append)
        self.store: ObjectStore = Metered(store, self.meter)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ObjectStoreServer], S3Client]]:
    made: list[S3Client] = []

    def make(server: ObjectStoreServer) -> S3Client:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        made.append(S3Client(S3Options(endpoint_url=server.endpoint_url, addressing="path")))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_memory() -> None:
    check_store(MemoryStore())


def test_a_directory(tmp_path: Path) -> None:
    check_store(DirectoryStore(tmp_path, "name"), is_sent_to=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_with_a_meter() -> None:
    metered = Impatient(MemoryStore())
    check_store(metered.store)
    assert len(metered.seconds) > 30
    assert metered.meter.in_flight == 0


def test_any_name_of_a_file_is_one_in_a_directory(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "name")
    for key in ("a\rb", "a\r\nb", "\n", " ", "\x7f", "\u2028", "k" * 255, "日本/語"):
        store.put(key, [b"x"], zlib.crc32(b"x"), Writing("t", "text/plain"))
        assert (tmp_path / key).read_bytes() == b"x"
    assert store.uploads("") == []


@pytest.mark.parametrize(
    ("kind", "part_bytes"), [("swift", 1 << 16), ("localstack", 5 * MIB)], ids=["swift", "localstack"]
)
def test_s3(
    kind: str, part_bytes: int, request: pytest.FixtureRequest, client: Callable[[ObjectStoreServer], S3Client]
) -> None:
    server: ObjectStoreServer = request.getfixturevalue(kind)
    bucket = server.fresh_bucket()
    check_store(S3Bucket(client(server), bucket), part_bytes=part_bytes)
    assert server.open_uploads(bucket) == []


def test_what_s3_says_of_credentials_and_buckets(
    swift: ObjectStoreServer, client: Callable[[ObjectStoreServer], S3Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = client(swift)
    with pytest.raises(Refusal) as refused:
        S3Bucket(right, "no-such-bucket").put("x", [b"x"], 2363233923, Writing("t", "text/plain"))
    assert refused.value.code == "not_found"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    wrong = S3Client(S3Options(endpoint_url=swift.endpoint_url, addressing="path"))
    with pytest.raises(Refusal) as refused:
        S3Bucket(wrong, swift.fresh_bucket()).head("x")
    assert refused.value.code == "forbidden"
    wrong.close()


def test_names_do_not_lead_out_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "file").symlink_to(tmp_path / "secret")
    store = DirectoryStore(root, "name")
    for key in (
        "../secret",
        "/secret",
        "a/../../secret",
        "",
        "a//b",
        "a/",
        ".weir-uploads/x",
        "link/secret",
        "file",
        "x\0",
    ):
        with pytest.raises(Refusal) as refused:
            store.head(key)
        assert refused.value.code in ("bad_argument", "forbidden"), key


def stores(**options: object) -> Stores:
    return Stores(
        S3Client(S3Options()),
        patience=Patience(),
        meter=PartMeter(lambda _: None),
        on_retry=lambda _: None,
        **options,  # type: ignore[arg-type]
    )


def test_what_users_may_name(tmp_path: Path) -> None:
    catalogue = stores(allow=("s3://open", "s3://part/in/"), named={"disk": str(tmp_path), "far": "s3://hidden/deep"})
    stop = threading.Event()
    for url in ("s3://open/x", "s3://open/a/b", "s3://part/in/x", "store:disk/x"):
        assert catalogue.find(url, stop).url == url
    assert catalogue.find("store:far/x", stop).url == "s3://hidden/deep/x"
    for url, code in (
        ("s3://opened/x", "forbidden"),
        ("s3://part/other", "forbidden"),
        ("s3://part/in", "forbidden"),
        ("s3://hidden/deep/x", "forbidden"),
        ("s3://", "bad_argument"),
        ("/etc/passwd", "bad_argument"),
        ("store:none/x", "bad_argument"),
    ):
        with pytest.raises(Refusal) as refused:
            catalogue.find(url, stop)
        assert refused.value.code == code, url
    assert catalogue.find("s3://open/", stop).named("x.csv").url == "s3://open/x.csv"
    assert catalogue.find("s3://open/a", stop).named("x.csv").url == "s3://open/a"
    assert catalogue.reopen("s3://hidden/y", stop).url == "s3://hidden/y"
    with pytest.raises(Refusal):
        stores().find("s3://open/x", stop)


def test_wrappers_pass_on_what_they_wrap() -> None:
    check = Retried(Metered(MemoryStore(), PartMeter(lambda _: None)), Patience(1), lambda _: None, threading.Event())
    check.put("a", [b"x"], 2363233923, Writing("t", "text/plain"))
    assert check.head("a").nbytes == 1
    assert list(check.read("a", offset=0, nbytes=1, etag=check.head("a").etag, piece_bytes=9)) == [b"x"]
