"""The rows of the wire: what is sent where, and what must come back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import client
from bench.client import Sample
from bench.servers import Server
from bench.wire import body
from bench.wire.client import Expected, Transfer, transfer

_CHUNK_BYTES = 64 * 1024
_KEPT = "/v1/runs/{run_id}/result"
_STARLETTES = ("starlette", "starlette-send")


@dataclass(frozen=True, slots=True)
class Route:
    """Where one contender does one work. ``stored`` tells the SHA-256 of what it wrote to its disk.

    Where ``upload`` is a path, the whole body is sent there first, once, and ``{run_id}`` in ``path`` is what the answer
    says in Weir-Run-Id.
    """

    path: str
    method: str = "POST"
    expects: Expected | None = None
    stored: Callable[[Server], str] | None = None
    upload: str | None = None


@dataclass(frozen=True, slots=True)
class WireWork:
    """Bytes in, bytes out, ``mib`` MiB of them. See ``work.Work``."""

    name: str
    title: str
    mib: int
    expects: Expected
    routes: dict[str, Route]
    chunk_bytes: int | None = None
    rows: int | None = None
    references: Sequence[str] = ()
    run_ids: dict[Server, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.mib << 20

    def offered_by(self, key: str) -> bool:
        return key in self.routes

    def prepare(self, key: str, server: Server) -> None:
        """Upload what is to be downloaded. It is no part of the transfer's peak."""
        upload = self.routes[key].upload
        if upload is not None and server not in self.run_ids:
            url = server.url + upload
            sent = transfer(url, method="POST", nbytes=self.nbytes, expects="same", field="weir-run-id")
            self.run_ids[server] = sent.field
            server.forget_peak()

    def is_right(self, key: str, server: Server) -> bool:
        """By curl and by hash, so that the C client is not its own witness."""
        self.prepare(key, server)
        route = self.routes[key]
        words = ["-X", route.method]
        if route.method != "GET":
            words += ["-T", str(body.file_of(self.mib))]
        if self.chunk_bytes:
            words += ["-H", "Transfer-Encoding: chunked"]
        if client.digest(self._url(key, server), *words) != self._digest(route.expects or self.expects):
            return False
        return route.stored is None or route.stored(server) == body.digest(self.mib)

    def take(self, key: str, server: Server) -> float:
        return self.take_at_once(key, server, 1).seconds

    def take_at_once(self, key: str, server: Server, connections: int) -> Transfer:
        """The same on several connections at once."""
        os.sync()  # what others wrote to the disk is not for this one to wait for
        route = self.routes[key]
        return transfer(
            self._url(key, server),
            method=route.method,
            nbytes=self.nbytes,
            expects=route.expects or self.expects,
            chunk_bytes=self.chunk_bytes,
            connections=connections,
        )

    def finish(self) -> None:
        """Their page cache is what the next work's servers need."""
        for path in body.folder().glob("disk-*"):
            path.unlink()

    def refer(self, key: str) -> Sample:
        raise NotImplementedError

    def is_reference_right(self, key: str) -> bool:
        raise NotImplementedError

    def _url(self, key: str, server: Server) -> str:
        return server.url + self.routes[key].path.format(run_id=self.run_ids.get(server))

    def _digest(self, expects: Expected) -> str:
        match expects:
            case "size":
                return hashlib.sha256(f"{self.nbytes}\n".encode()).hexdigest()
            case "nothing":
                return hashlib.sha256().hexdigest()
        return body.digest(self.mib, upper=expects == "upper")


def wire(mib: int) -> list[WireWork]:
    """All rows, with ``mib`` MiB each."""
    everywhere = ("go", "node", *_STARLETTES, "c")
    name = body.file_of(mib).name
    sink = {key: Route("/sink") for key in ("weir-wire", "go", "node", "starlette", "c")}
    echo = {"weir": Route("/v1/transform"), **{key: Route("/echo") for key in everywhere}}
    upper = {"weir": Route("/v1/transform?upper"), **{key: Route("/upper") for key in everywhere}}
    disk = {
        "weir-wire": Route("/disk", stored=lambda server: client.digest(f"{server.url}/disk")),
        **{key: Route("/disk", stored=_file(key)) for key in ("go", "node", "starlette", "c")},
        "nginx": Route("/disk/disk-nginx", method="PUT", expects="nothing", stored=_file("nginx")),
    }
    download = {
        "weir": Route(_KEPT, method="GET", upload="/v1/transform?deliver=whole"),
        **{key: Route(f"/file/{name}", "GET") for key in ("go", "node", "nginx", "nginx-copy", "starlette", "c")},
        "c-memory": Route(f"/memory/{name}", "GET"),
    }
    return [
        WireWork("upload", "Upload, answered by its size", mib, "size", sink),
        WireWork("upload-chunked", "Upload in chunks of 64 KiB", mib, "size", sink, _CHUNK_BYTES),
        WireWork("echo", "Echo while it uploads", mib, "same", echo),
        WireWork("upper", "ASCII upper case while it uploads", mib, "upper", upper),
        WireWork("disk", "Upload to the disk, answered by its size", mib, "size", disk),
        WireWork("download", "Download of a file", mib, "same", download),
    ]


def _file(key: str) -> Callable[[Server], str]:
    return lambda _: body.file_digest(body.folder() / f"disk-{key}")


NAMES = ("upload", "upload-chunked", "echo", "upper", "disk", "download")
