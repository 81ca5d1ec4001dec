"""The body of a run that goes on without its client: taken to disk whole, before anything is promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from app.core.interfaces import Source
from app.core.obtain import obtain
from app.orders.workshop import Workshop
from app.runs.book import Entry
from app.stores.spool_file import SpoolFile


async def take_in(shop: Workshop, body: Source, entry: Entry, *, outside_bytes: int) -> str:
    """Put ``body`` on the shelf for the run of ``entry``; its place there. ``outside_bytes`` is what the source holds.
    Raises the entry's reason once the run is cancelled; then, as after any failure, nothing of the body stays."""
    loop = asyncio.get_running_loop()
    held_bytes = 3 * shop.options.build.page_bytes + outside_bytes
    async with shop.runner.budget.admit(held_bytes):
        file = await obtain(shop.io_executor, shop.spool.open, SpoolFile.close)
        try:
            async for page in body:
                await loop.run_in_executor(shop.io_executor, file.append, page.payload)
                del page
                if entry.reason is not None:
                    raise entry.reason  # it was cancelled: the rest of the body is of no use
            put = partial(shop.shelf.put, file, f"{entry.run.id}.body")
            return await obtain(shop.io_executor, put, shop.shelf.drop)
        finally:
            file.close()
            if isinstance(body, AsyncGenerator):
                await body.aclose()  # it may have stopped with a page in its hands
