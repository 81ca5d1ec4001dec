"""A run that has a client ends with it: when the client leaves, and when it neither takes the result nor sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from app.core.errors import Refusal
from app.core.interfaces import Receipt
from app.runs.book import Entry
from app.sinks.response import ResponseSink
from app.sources.request import RequestBody
from app.web.protocol.exchange import Exchange

_LOOK_EVERY_S = 0.5
"""How often a run is looked at for a client that neither reads nor leaves."""


async def watched(
    work: Awaitable[Receipt],
    entry: Entry,
    body: RequestBody,
    *,
    wire: Exchange | None,
    response: ResponseSink | None,
    idle_s: float,
) -> Receipt:
    """The result of ``work``, which is cancelled when the client leaves. Its end is always awaited.

    ``wire`` is our own, if it carries the request: it keeps the time itself. Elsewhere a client is given up that has
    taken nothing of ``response``, where the result is streamed, and sent nothing for ``idle_s``.
    """
    run = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(body.wait_gone())
    try:
        while not run.done():
            waiting = (run,) if entry.settling else (run, watch)
            await asyncio.wait(waiting, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if entry.settling:
                continue
            if watch.done() and not run.done():
                code = "client_gone" if wire is None else wire.leaving
                entry.reason = Refusal(code, "the client left before the result was whole")
                run.cancel()
                break
            if wire is None and response is not None and min(response.stalled_s(), body.quiet_s()) > idle_s:
                entry.reason = Refusal("stalled", f"the client took nothing for {idle_s:g} s")
                run.cancel()
                break
        return await run
    except asyncio.CancelledError:
        if run.cancelled():
            raise entry.reason or Refusal("cancelled", "the run was cancelled") from None
        entry.reason = entry.reason or Refusal("shutting_down", "the server stopped before the run ended")
        run.cancel()
        await asyncio.wait((run,))
        raise
    finally:
        watch.cancel()
        del run  # it remembers its failure, which remembers this frame, and what a store's client keeps of a part
