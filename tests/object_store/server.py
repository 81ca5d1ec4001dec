"""A real S3 server in a process of its own, on a free port of the loopback, ended by its process id."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

HOST = "127.0.0.1"


@functools.cache
def _session() -> Any:
    """One for all clients: each would read again what S3 can do, which takes 150 ms."""
    return boto3.session.Session()


class Process:
    """A program that serves a port. Killed without a word, it can be started again on the same port."""

    def __init__(self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> None:
        self.command = list(command)
        self.port = port
        self.log = log
        self.environment = dict(environment)
        self.start()

    def start(self, within_s: float = 60.0) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        deadline = time.monotonic() + within_s
        while not answers(self.port):
            ended = self.popen.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.command[0]} did not come up:\n{self.log.read_text()[-5000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)


@dataclass(frozen=True)
class ObjectStoreServer:
    """What a test needs in order to use an S3 server, to look at it from outside, and to end it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    process: Process = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.popen.pid

    def environment(self) -> dict[str, str]:
        """The variables by which an AWS client finds this server, and nothing of the machine's own settings."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @functools.cached_property
    def observer(self) -> Any:
        """A client that is kept, for looking at the server from outside."""
        return self.client()

    def client(self, **settings: Any) -> Any:
        """A client that tries everything once. ``endpoint_url`` may name a proxy; all else goes to its Config."""
        endpoint_url = settings.pop("endpoint_url", self.endpoint_url)
        secret_key = settings.pop("secret_key", self.secret_key)
        settings = {
            "s3": {"addressing_style": "path"},
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 30,
        } | settings
        return _session().client(
            "s3",
            endpoint_url=endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=secret_key,
            region_name=self.region,
            config=Config(**settings),
        )

    def fresh_bucket(self) -> str:
        name = f"bucket-{secrets.token_hex(6)}"
        self.observer.create_bucket(Bucket=name)
        return name

    def open_uploads(self, bucket: str) -> list[tuple[str, str]]:
        """The key and the id of each multipart upload that was neither completed nor aborted."""
        pages = self.observer.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        return [(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", ())]

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        """Kill it if it runs, and have it again at the same address, with what it had on disk."""
        self.process.kill()
        self.process.start()


@contextlib.contextmanager
def running(server: ObjectStoreServer) -> Iterator[ObjectStoreServer]:
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
    return port


def answers(port: int) -> bool:
    """Whether an HTTP server that is not still starting is behind the port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
