import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp

url, source, sink = sys.argv[1:]


async def body() -> AsyncIterator[bytes]:
    with open(source, "rb") as file:
        while piece := file.read(1 << 18):
            yield piece


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=body()) as reply:
        reply.raise_for_status()
        with open(sink, "wb") as out:
            async for piece in reply.content.iter_any():
                out.write(piece)


asyncio.run(main())
