"""A disk spool that has to be empty in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.stores.spool import Spool


@contextmanager
def spooled(directory: Path, limit_bytes: int = 1 << 30) -> Iterator[Spool]:
    """At the end nothing is left on disk."""
    with closing(Spool(directory, limit_bytes=limit_bytes)) as spool:
        yield spool
        status = spool.statistics()
        assert (status.used_bytes, status.open_files) == (0, 0)
