"""OpenStack Swift with its S3 API. It answers an upload when the data is on disk, so kill -9 loses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.object_store.install import SWIFT
from tests.object_store.server import HOST, ObjectStoreServer, Process, free_port, running

ACCESS_KEY = "weir:tester"
SECRET_KEY = "not-a-secret"


@contextmanager
def swift(directory: Path) -> Iterator[ObjectStoreServer]:
    """A server whose whole state is under ``directory``, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    require_attributes(directory)
    port = free_port()
    # -P: the folder of the script has a swift.py of its own, this one.
    command = [str(SWIFT.python), "-P", "-W", "ignore", str(Path(__file__).with_name("swift_process.py"))]
    command += [str(directory), str(port), ACCESS_KEY, SECRET_KEY]
    process = Process(command, port, directory / "swift.log", {"PATH": os.environ["PATH"]})
    with running(ObjectStoreServer(f"http://{HOST}:{port}", ACCESS_KEY, SECRET_KEY, "us-east-1", process)) as server:
        yield server


def require_attributes(directory: Path) -> None:
    """Swift keeps what it knows of an object in extended attributes of its file."""
    try:
        os.setxattr(directory, "user.weir", b"1")
    except OSError as error:
        raise RuntimeError(
            f"Swift needs a file system with extended attributes, and {directory} is on none ({error.strerror}): "
            "give pytest another folder by --basetemp, or set TMPDIR"
        ) from error
