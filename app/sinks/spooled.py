"""A whole result on disk, with its digest."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Executor

from app.core.interfaces import Receipt
from app.core.page import Page
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile


class SpooledSink:
    """Collects the result in a spool file; after ``commit`` the file belongs to whoever takes ``file``, who closes it.

    The digest is SHA-256 (RFC 9530 calls it ``sha-256``).
    """

    holds = 0

    def __init__(self, spool: Spool, executor: Executor) -> None:
        self._executor = executor
        self._sha256 = hashlib.sha256()
        self.file: SpoolFile = spool.open()

    async def write(self, page: Page) -> None:
        """Append a page."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._append, page)

    async def commit(self) -> Receipt:
        """The result is complete."""
        return Receipt(self.file.nbytes, self._sha256.hexdigest())

    async def abort(self) -> None:
        """Drop the file."""
        self.file.close()

    def _append(self, page: Page) -> None:
        self.file.append(page.payload)
        self._sha256.update(page.payload)
