"""One conformance check for any sink of bytes: hand it a maker, and a look at what is there.

await check_sink(lambda: FileSink(path, executor), lambda: path.read_bytes() if path.exists() else None)
"""

from __future__ import annotations

import random
from collections.abc import Callable

from app.core.interfaces import Sink
from app.core.page import Page

CUTS = ([], [0], [1], [7, 0, 900], [5000, 5000, 1], [64 * 1024] * 5, [3] * 400)
"""The sizes of pages, in order."""


async def check_sink(make: Callable[[], Sink], look: Callable[[], bytes | None]) -> None:
    """However a result is cut it comes out the same, and only when it is committed; a sink that is aborted, at any
    point and any number of times, leaves what was there before."""
    for number, sizes in enumerate(CUTS):
        pages = [random.Random(f"{number} {at}").randbytes(size) for at, size in enumerate(sizes)]
        before = look()
        for stop in range(len(pages) + 1) if len(pages) < 10 else (200,):
            sink = make()
            for page in pages[:stop]:
                await sink.write(Page(memoryview(page), len(page)))
            assert look() == before
            await sink.abort()
            await sink.abort()
            assert look() == before
        sink = make()
        for page in pages:
            await sink.write(Page(page, len(page)))
        receipt = await sink.commit()
        assert receipt.nbytes == sum(sizes)
        assert look() == b"".join(pages)
        await sink.abort()  # too late
        assert look() == b"".join(pages)
