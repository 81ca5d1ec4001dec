"""The S3 servers: Swift, and versitygw, the fastest that a package registry has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.compiler import Absent, on_path
from bench.inputs import cache_folder
from tests.object_store.server import HOST, ObjectStoreServer, Process, free_port, running
from tests.object_store.swift import require_attributes, swift

VERSITYGW = "v1.8.0"


def versitygw_program() -> Path:
    """versitygw as Go builds it from the module proxy, which takes two minutes; kept."""
    folder = cache_folder() / f"versitygw-{VERSITYGW}"
    binary = folder / "versitygw"
    if not binary.exists():
        module = f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"
        environment = os.environ | {"GOBIN": str(folder)}
        build = subprocess.run([on_path("go"), "install", module], env=environment, capture_output=True, text=True)
        if build.returncode:
            raise Absent(f"versitygw: {(build.stderr.strip().splitlines() or ['no word'])[-1]}")
    return binary


@contextmanager
def versitygw(directory: Path) -> Iterator[ObjectStoreServer]:
    """Objects are files under ``directory``: what a client is measured by is this, a disk, and MD5."""
    objects = directory / "objects"
    objects.mkdir(parents=True)
    require_attributes(objects)
    port, access_key, secret_key = free_port(), "weir", "not-a-secret"
    # It closes each connection after its answer unless told not to.
    command = [str(versitygw_program()), "--port", f"{HOST}:{port}", "--quiet", "--keep-alive", "posix", str(objects)]
    environment = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
    process = Process(command, port, directory / "versitygw.log", environment)
    store = ObjectStoreServer(f"http://{HOST}:{port}", access_key, secret_key, "us-east-1", process)
    with running(store):
        yield store


STORES: dict[str, Callable[[Path], AbstractContextManager[ObjectStoreServer]]] = {
    "swift": swift,
    "versitygw": versitygw,
}
