"""Quarantined records, as NDJSON in the spool."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from app.core.page import Reject
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile


class RejectsLog:
    """Takes rejects from any thread, in order, and gives them back as bytes; its file is made when the first comes."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._file: SpoolFile | None = None
        self._closed = False
        self._guard = threading.Lock()

    @property
    def nbytes(self) -> int:
        """The bytes that are kept."""
        return 0 if self._file is None else self._file.nbytes

    def keep(self, rejects: Sequence[Reject]) -> None:
        """Append rejects, a JSON object a line: line, byte, column, code, detail, text."""
        lines = "".join(
            json.dumps(
                {
                    "line": r.line,
                    "byte": r.byte,
                    "column": r.column,
                    "code": r.code,
                    "detail": r.detail,
                    "text": r.text,
                },
                ensure_ascii=False,
            )
            + "\n"
            for r in rejects
        )
        with self._guard:
            if self._closed:
                return  # the run was forgotten while it ran
            if self._file is None:
                self._file = self._spool.open()
            self._file.append(lines.encode("utf-8", "replace"))

    @property
    def file(self) -> SpoolFile | None:
        """The file that they are in; None if there was none."""
        return self._file

    def read(self, offset: int, nbytes: int) -> bytes:
        """Up to ``nbytes`` at ``offset``."""
        return b"" if self._file is None else self._file.read_at(offset, nbytes)

    def close(self) -> None:
        """Drop what is kept. May be called twice."""
        with self._guard:
            self._closed = True
            if self._file is not None:
                self._file.close()
