"""The servers, one of each for all tests of a worker, and only if a test asks for it: both are up in a second or so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_store.install import LOCALSTACK, SWIFT, Environment
from tests.object_store.localstack import localstack as run_localstack
from tests.object_store.postgres import postgres
from tests.object_store.server import ObjectStoreServer
from tests.object_store.swift import swift as run_swift


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    """Verifies signatures and digests; what it has taken is on disk. A test that kills it must have its own."""
    require(SWIFT)
    with run_swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def localstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    """Keeps conditions under contention, and the types of checksums; parts are 5 MiB or more, but for the last."""
    require(LOCALSTACK)
    with run_localstack(tmp_path_factory.mktemp("localstack")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server whose databases are for one test each."""
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


def require(environment: Environment) -> None:
    if not environment.is_installed():
        pytest.fail(f"{environment.name} is not installed: python -m tests.object_store.install", pytrace=False)
