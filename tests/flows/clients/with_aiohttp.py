import asyncio
import sys

import aiohttp

url, source, sink = sys.argv[1:]


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    with open(source, "rb") as body:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=body) as reply:
            reply.raise_for_status()
            with open(sink, "wb") as out:
                async for piece in reply.content.iter_any():
                    out.write(piece)


asyncio.run(main())
