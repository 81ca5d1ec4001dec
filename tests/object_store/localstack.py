"""LocalStack, of which only S3 runs: its conditional writes are atomic, and it knows all checksums, but no signatures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.object_store.install import LOCALSTACK
from tests.object_store.server import HOST, ObjectStoreServer, Process, free_port, running


@contextmanager
def localstack(directory: Path) -> Iterator[ObjectStoreServer]:
    """A server that writes nothing but under ``directory``, asks nobody, and is empty whenever it starts."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "FILESYSTEM_ROOT": str(directory),
        "SERVICES": "s3",
        "DOCKER_HOST": f"unix://{directory}/none",
        "OVERRIDE_IN_DOCKER": "0",  # where it takes itself to be in a container, it pings the host and writes elsewhere
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
    }
    command = [str(LOCALSTACK.python), "-P", str(Path(__file__).with_name("localstack_process.py")), str(port)]
    process = Process(command, port, directory / "localstack.log", environment)
    with running(ObjectStoreServer(f"http://{HOST}:{port}", "weir", "not-a-secret", "us-east-1", process)) as server:
        yield server
