"""Which processes are alive: each says so now and then, and one that is gone is found out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from app.runs.database import Database, owners

BEAT_S = 5.0
DEAD_AFTER_S = 30.0
"""Clocks of servers that share a database may differ by less than this."""


class Owner:
    """This process, as the owner of runs. Calls block.

    ``place`` is its directory in the spool, whose lock it holds for as long as it lives: so a process on the same host
    that is gone is known at once, and one elsewhere once its last beat is ``DEAD_AFTER_S`` old.
    """

    def __init__(self, database: Database, place: Path) -> None:
        self.id = f"{place.name}-{os.getpid()}"
        self._database = database
        self._place = place
        self._host = socket.gethostname()

    def beat(self) -> None:
        """Say that this process is alive."""
        with self._database.writing() as connection:
            values = {"host": self._host, "spool": str(self._place), "seen_at": time.time()}
            if not connection.execute(update(owners).where(owners.c.id == self.id).values(values)).rowcount:
                with contextlib.suppress(IntegrityError):
                    connection.execute(owners.insert().values(id=self.id, **values))

    def bury(self) -> None:
        """Take those who are dead off the list."""
        with self._database.reading() as connection:
            listed = list(connection.execute(select(owners.c.id, owners.c.host, owners.c.spool, owners.c.seen_at)))
        now = time.time()
        for name, host, spool, seen_at in listed:
            if name == self.id:
                continue
            near = host == self._host and Path(spool).parent == self._place.parent
            if now - seen_at > DEAD_AFTER_S or (near and not _is_locked(Path(spool))):
                with self._database.writing() as connection:
                    # Unless it has beaten since: then it was only late.
                    connection.execute(delete(owners).where(owners.c.id == name, owners.c.seen_at == seen_at))

    def leave(self) -> None:
        """This process ends, and owns nothing any more."""
        with self._database.writing() as connection:
            connection.execute(delete(owners).where(owners.c.id == self.id))


def _is_locked(place: Path) -> bool:
    try:
        fd = os.open(place / "owner.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
