"""A whole result that is kept with its run."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from functools import partial

from app.core.interfaces import Receipt
from app.core.obtain import obtain
from app.core.page import Page
from app.runs.book import Result
from app.sinks.multipart import MultipartSink
from app.sinks.spooled import SpooledSink
from app.stores.kept import Shelf


class ResultSink:
    """Writes to the spool, or to the store where results are kept; once committed, ``place`` is where it is, durably."""

    def __init__(self, inner: SpooledSink | MultipartSink, shelf: Shelf, run_id: str, executor: Executor) -> None:
        self._inner = inner
        self._shelf = shelf
        self._run_id = run_id
        self._executor = executor
        self.holds = inner.holds
        self.place: str | None = None

    async def write(self, page: Page) -> None:
        """See ``Sink.write``."""
        await self._inner.write(page)

    async def commit(self) -> Receipt:
        """See ``Sink.commit``."""
        receipt = await self._inner.commit()
        if isinstance(self._inner, MultipartSink):
            self.place = self._inner.url
            return receipt
        file = self._inner.file
        put = partial(self._shelf.put, file, f"{self._run_id}.result")
        self.place = await obtain(self._executor, put, self._shelf.drop)
        file.close()
        return receipt

    def result(self, receipt: Receipt, media_type: str, coding: str | None) -> Result:
        """The record of what was committed."""
        assert self.place is not None
        return Result(self.place, receipt.nbytes, media_type, coding, receipt.digest or "", time.time())

    async def abort(self) -> None:
        """See ``Sink.abort``."""
        await self._inner.abort()
