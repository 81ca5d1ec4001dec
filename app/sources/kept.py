"""A body that was kept until its run's turn, as pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from app.core.page import Page
from app.stores.kept import KeptBytes


async def kept_pages(kept: KeptBytes, page_bytes: int, executor: Executor) -> AsyncIterator[Page]:
    """All of it, in order; closed when this is closed or exhausted."""
    loop = asyncio.get_running_loop()
    pieces = kept.pieces(0, kept.nbytes, page_bytes)
    given = 0
    try:
        while (piece := await loop.run_in_executor(executor, next, pieces, None)) is not None:
            yield Page(piece, len(piece), byte=given, first=given == 0)
            given += len(piece)
            del piece
    finally:
        kept.close()
