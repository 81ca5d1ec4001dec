"""Orders: taken, taken up again after a server that is gone, and given up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

from app.core.budget import Budget
from app.orders.desk import Desk
from app.orders.order import Order
from app.orders.workshop import Workshop
from app.runs.database import sqlite_url
from app.runs.ledger import Ledger
from app.runs.runner import Runner
from tests.runs.process import Process, new_run, process


def desk_of(server: Process) -> Desk:
    """A desk whose orders are never carried out, so that it needs no steps and no options."""
    workshop = Workshop(
        runner=Runner(Budget(1 << 20, max_flows=4, wait_s=1.0), server.book, lambda _: None),
        spool=server.spool,
        shelf=server.shelf,
        stores=server.stores,
        lookups=cast(Any, None),
        ledger=Ledger(server.database, server.owner.id),
        executor=server.threads,
        io_executor=server.threads,
        store_executor=server.threads,
        on_abort=lambda _: None,
        options=cast(Any, None),
    )
    return Desk(workshop, server.owner, at_a_time=1, most_attempts=3)


def order(body: str | None = None) -> Order:
    return Order((("upper", ""),), None, body, None, "bytes", "bytes")


async def test_an_order_that_cannot_be_read_does_not_keep_others_from_being_taken_up(tmp_path: Path) -> None:
    """One of a later version, with words of its own: it is told, and what comes after it is not lost."""
    url = sqlite_url(tmp_path / "state.db")
    dead = Process(tmp_path / "a", url)
    gone = f"file:{dead.spool.directory.parent}/kept/gone.body"
    for name, asked in (
        ("later", json.dumps(json.loads(order(gone).text()) | {"of_later": 1})),
        ("broken", json.dumps({"body": None})),
        ("lost", order(gone).text()),
    ):
        await dead.book.save(dead.book.add(new_run(name, "async"), asked))
    dead.owner.leave()
    await dead.die()
    async with process(tmp_path / "b", url) as heir:
        desk = desk_of(heir)
        await desk.look_round()
        await heir.book.close()
        errors = {run.id: run.error.code for run in await heir.book.newest(9) if run.error is not None}
        assert errors == {"later": "server_failed", "broken": "server_failed", "lost": "interrupted"}
        await desk.close()


async def test_who_deletes_a_run_while_its_body_is_taken_gets_no_run(tmp_path: Path) -> None:
    async with process(tmp_path / "a", sqlite_url(tmp_path / "state.db")) as server:
        desk = desk_of(server)
        entry = server.book.add(new_run("aa", "async"))
        await server.book.forget(entry)
        body = server.keep(b"input", "aa.body")
        entry.asked = order(body).text()
        desk.take(entry, order(body))
        async with asyncio.timeout(10):
            await asyncio.wait(desk._tasks)
        assert (entry.run.state, server.kept(), await server.book.newest(9)) == ("cancelled", [], [])
