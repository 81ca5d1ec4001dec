"""Runs without their client: taken, carried, and taken up again after a server that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from app.core.errors import Refusal
from app.core.interfaces import Receipt, Source
from app.orders.order import Order, order_of_text
from app.orders.result import ResultSink
from app.orders.workshop import Workshop, account_of, object_name
from app.runs.book import Entry
from app.runs.ledger import Write, end_write, token_of_run
from app.runs.owners import Owner
from app.runs.record import Restarted, advance
from app.sinks.multipart import MultipartSink
from app.sinks.rejects import RejectsLog
from app.sources.kept import kept_pages, kept_pages_by
from app.stores.kept import KeptBytes
from app.stores.objects import ABSENT, TOKEN, Writing

T = TypeVar("T")

log = logging.getLogger("weir")


class Desk:
    """Carries ``at_a_time`` orders; the others wait their turn here, so that they do not stand before requests in the
    budget's queue. ``most_attempts``: how often a run is begun whose server went down with it."""

    def __init__(self, workshop: Workshop, owner: Owner, *, at_a_time: int, most_attempts: int) -> None:
        self._shop = workshop
        self._owner = owner
        self._places = asyncio.Semaphore(at_a_time)
        self._most_attempts = most_attempts
        self._tasks: set[asyncio.Task[None]] = set()
        self._carried: set[Entry] = set()
        self._found: list[Entry] = []

    def take(self, entry: Entry, order: Order) -> None:
        """Carry a run whose entry is durable."""
        task = asyncio.create_task(self._carry(entry, order))
        entry.stop = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def beat(self) -> None:
        """Say that this process is alive. To be called every ``BEAT_S``."""
        await self._off_loop(self._owner.beat)

    async def look_round(self) -> None:
        """Find processes that are gone, take over their runs and end their writes. To be called at the start and now and
        then; what cannot be settled, as a store does not answer, is tried the next time."""
        await self._off_loop(self._owner.bury)
        self._found += await self._shop.runner.book.adopt()
        found, self._found = self._found, []
        for entry in found:
            try:
                await self._take_up(entry)
            except Refusal as refusal:
                log.error("run %s cannot be taken up yet: %s", entry.run.id, refusal)
                self._found.append(entry)
            except Exception as error:  # an order of another version, say; the others are taken up all the same
                log.exception("run %s", entry.run.id)
                failed = f"the run cannot be taken up: {type(error).__name__}: {error}"
                await self._shop.runner.refuse(entry, Refusal("server_failed", failed))
        await self._end_writes()

    async def close(self) -> None:
        """Leave what runs to the next server."""
        while self._tasks:
            for entry in self._carried:
                entry.reason = entry.reason or Refusal("shutting_down", "the server stopped before the run ended")
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    async def _carry(self, entry: Entry, order: Order) -> None:
        runner = self._shop.runner
        self._carried.add(entry)
        try:
            async with self._places:
                if entry.forgotten:  # since before there was anything to stop
                    raise entry.reason or Refusal("cancelled", "the run was cancelled with DELETE")
                await self._execute(entry, order)
        except asyncio.CancelledError:
            if not entry.ended.is_set() and entry.stop is not None:  # it was still waiting for its turn
                if entry.reason is None or entry.reason.code == "shutting_down":
                    runner.book.release(entry)
                else:
                    await runner.refuse(entry, entry.reason)
        except Refusal as refusal:
            if not entry.ended.is_set():
                await runner.refuse(entry, refusal)
        except Exception as error:
            log.exception("run %s", entry.run.id)
            if not entry.ended.is_set():
                await runner.refuse(entry, Refusal("server_failed", f"{type(error).__name__}: {error}"))
        finally:
            self._carried.discard(entry)
        if order.body is not None and (entry.ended.is_set() or entry.forgotten):
            await self._off_loop(self._shop.shelf.drop, order.body)

    async def _execute(self, entry: Entry, order: Order) -> None:
        shop = self._shop
        plan, run_id = order.plan(), entry.run.id
        rejects = RejectsLog(shop.spool)
        stop = threading.Event()
        kept: KeptBytes | None = None
        ends = contextlib.AsyncExitStack()
        try:
            built = await ends.enter_async_context(
                shop.built(plan, decode=order.codings, encode=order.coding, keep=rejects.keep)
            )
            source: Source
            if order.input is not None:
                place = shop.stores.find(order.input, stop)
                info = await self._in_store(place.store.head, place.key)
                stored = shop.stored_object(place, info, stop)
                length = info.nbytes
                if built.read_file is not None:
                    source, held = stored.pages_by(built.read_file, shop.io_executor), 0
                else:
                    source, held = stored.pages(), stored.holds
            else:
                assert order.body is not None
                kept = await shop.open_kept(order.body)
                length, held = kept.nbytes, 0
                if built.read_file is not None:
                    source = kept_pages_by(built.read_file, kept, shop.io_executor)
                else:
                    source = kept_pages(kept, shop.options.build.page_bytes, shop.io_executor)
            known = None if order.codings else length
            writing = Writing(token_of_run(run_id, entry.run.attempt), built.media_type, order.coding, plan.overwrite)
            sink: MultipartSink | ResultSink
            if plan.sink is not None:
                sink = shop.object_sink(
                    plan.sink, object_name(run_id, plan), writing, built, known, hashed=order.hashed
                )
            else:
                sink = shop.result_sink(run_id, writing, built, known)
            flow = shop.flow(built, source, sink, outside_bytes=held)

            async def settle(receipt: Receipt | None) -> None:
                if isinstance(sink, ResultSink) and receipt is not None:
                    entry.result = sink.result(receipt, built.media_type, order.coding)
                if plan.on_error == "quarantine":
                    entry.rejects = await shop.keep_rejects(run_id, rejects)

            await shop.runner.execute(entry, flow, account_of(built), settle, patient=True)
        finally:
            stop.set()
            await ends.aclose()
            rejects.close()
            if kept is not None:
                kept.close()

    async def _take_up(self, entry: Entry) -> None:
        """Whatever was going on in a run whose server is gone: bring it to its end, or begin it again."""
        runner = self._shop.runner
        if entry.forgotten:
            await runner.refuse(entry, entry.reason or Refusal("cancelled", "the run was cancelled with DELETE"))
            return
        order = None if entry.asked is None else order_of_text(entry.asked)
        write = await self._off_loop(self._shop.ledger.of_run, entry.run.id, entry.run.attempt)
        made = write is not None and write.nbytes is not None and await self._was_made(write)
        if made and write is not None and write.url == entry.run.sink:
            log.info("run %s had ended when its server went down", entry.run.id)
            await runner.conclude(entry, Receipt(write.nbytes or 0, write.digest))
        elif order is None or (order.body is not None and self._shop.shelf.path(order.body) is None):
            gone = "the server went down while the run was going on, and its input was with it: send it again"
            await runner.refuse(entry, Refusal("interrupted", gone))
        elif entry.run.state != "accepted" and entry.run.attempt >= self._most_attempts:
            many = f"its server went down {entry.run.attempt} times while the run was going on"
            await runner.refuse(entry, Refusal("interrupted", many))
        else:
            if entry.run.state != "accepted":
                entry.run = advance(entry.run, Restarted())
            log.info("run %s begins again, attempt %d", entry.run.id, entry.run.attempt)
            await runner.book.save(entry)
            self.take(entry, order)
            return
        if made and write is not None and write.url != entry.run.sink:
            await self._off_loop(self._shop.shelf.drop, write.url)  # a result that was kept, and has no record
        if order is not None and order.body is not None:
            await self._off_loop(self._shop.shelf.drop, order.body)

    async def _was_made(self, write: Write) -> bool:
        found = self._shop.stores.reopen(write.url, threading.Event())
        try:
            info = await self._in_store(found.store.head, found.key)
        except Refusal as refusal:
            if refusal.code in ABSENT:
                return False
            raise
        return info.metadata.get(TOKEN) == write.token and info.nbytes == write.nbytes

    async def _end_writes(self) -> None:
        """Abort what writes of the dead, and our own that could not be aborted, left in stores."""
        shop = self._shop
        for write in await self._off_loop(shop.ledger.abandoned):
            try:
                found = shop.stores.reopen(write.url, threading.Event())
                others = shop.ledger.uploads_of_others
                if await self._in_store(end_write, write, found.store, found.key, others):
                    await self._off_loop(shop.ledger.close, write.entry)
                    shop.on_abort(True)
            except Refusal as refusal:
                shop.on_abort(False)
                log.warning("an upload to %s is still to be aborted: %s", write.url, refusal)

    async def _off_loop(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._shop.io_executor, work, *arguments)

    async def _in_store(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._shop.store_executor, work, *arguments)
