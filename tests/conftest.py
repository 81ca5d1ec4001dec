from __future__ import annotations

import functools
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.object_store.fixtures import localstack, postgres_url, swift
from tests.server import Server, serving

__all__ = ["localstack", "postgres_url", "swift"]

# Some 200 processes are started, each of which would compile the whole of app again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes is a matter of what else the machine does.
settings.register_profile("weir", deadline=None)
settings.load_profile("weir")

SHARING = ("tests/flows/", "tests/object_store/", "tests/runs/", "tests/stores/", "tests/web/", "tests/test_workers.py")


class Scheduler(LoadScopeScheduling):
    """Files whose tests share servers are for one worker each, and come first; of others each function is on its own."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::" if nodeid.startswith(SHARING) else "[")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    return Scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Every ``httpx.get`` and the like would read all that there are again, 50 ms, and then encrypt nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


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
