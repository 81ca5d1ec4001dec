from __future__ import annotations

from pathlib import Path

import pytest

from app.runs.database import sqlite_url
from tests.object_store.postgres import fresh_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "state.db")
    return fresh_database(request.getfixturevalue("postgres_url"))
