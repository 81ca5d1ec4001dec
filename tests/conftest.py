from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store.fixtures import localstack, swift
from tests.server import Server, serving

__all__ = ["localstack", "swift"]


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server") / "spool", fresh=True) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The session's server; whatever a test did to it, everything is given back afterwards."""
    yield shared_server
    shared_server.assert_at_rest()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"
