"""Formats that can only be read from their end: the input goes to the spool first, and is read from there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from app.core.interfaces import Source
from app.core.obtain import obtain
from app.core.page import Page
from app.sources.random_access import ReadFile, read_pages
from app.stores.spool import Spool
from app.stores.spool_file import SpoolFile


async def spooled_pages(source: Source, spool: Spool, read: ReadFile, executor: Executor) -> AsyncIterator[Page]:
    """Take all of ``source`` to disk, then give the pages that ``read`` makes of the file, one per hop to a thread.

    The file is gone once this is closed or exhausted; cancelled while it is being opened, soon after.
    """
    loop = asyncio.get_running_loop()
    file = await obtain(executor, spool.open, SpoolFile.close)
    try:
        async for page in source:
            await loop.run_in_executor(executor, file.append, page.payload)
            del page
        await loop.run_in_executor(executor, file.trim)
        async with contextlib.aclosing(read_pages(file, read, executor)) as pages:
            async for page in pages:
                yield page
                del page
    finally:
        file.close()
