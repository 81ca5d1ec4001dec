"""The server, which is killed when it is about to write the record of the first run that has succeeded. For tests only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from app import cli
from app.runs.journal import Journal, Row

_store = Journal._store


def _store_or_die(self: Any, rows: Mapping[str, Row | None]) -> list[str]:
    if any(row is not None and row()["state"] == "succeeded" for row in rows.values()):
        os.kill(os.getpid(), signal.SIGKILL)
    return _store(self, rows)


Journal._store = _store_or_die  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(cli.main())
