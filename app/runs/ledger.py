"""Which writes to stores are under way, kept where the next process finds it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, insert, or_, select, update

from app.core.errors import Refusal
from app.runs.database import Database, owners, runs, writes
from app.stores.objects import NoSuchUpload, ObjectStore, undo

_MOST_SKEW_S = 300.0
"""How far a store's clock may be behind ours."""


_COLUMNS = tuple(
    writes.c[name]
    for name in (
        "id",
        "url",
        "token",
        "began_at",
        "upload_id",
        "nbytes",
        "digest",
        "owner",
    )
)


def token_of_run(run_id: str, attempt: int) -> str:
    """What marks the result of a run, in its store and in the ledger."""
    return f"{run_id}.{attempt}"


def run_of_token(token: str) -> str:
    """The run whose result, or whose rejects, that is."""
    return token.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Write:
    """An entry. ``nbytes`` and ``digest`` are there from when everything was sent: then there may be an object. It was
    ``left`` by a process that knew that the write had failed, or else by one that is gone."""

    entry: int
    url: str
    token: str
    began_at: float
    upload_id: str | None
    nbytes: int | None
    digest: str | None
    owner: str | None

    @property
    def left(self) -> bool:
        """See the class."""
        return self.owner is None


class Ledger:
    """See ``sinks.multipart.Ledger``. ``owner`` is the process whose writes these are."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._ours: set[int] = set()
        self._abandoned = 0

    @property
    def open_writes(self) -> int:
        """Writes that are under way here, and those of anybody that were to be ended when last looked for."""
        return len(self._ours) + self._abandoned

    def open(self, url: str, token: str) -> int:
        """A write is about to begin."""
        with self._database.writing() as connection:
            values = {"owner": self._owner, "url": url, "token": token, "began_at": time.time()}
            entry = int(connection.execute(insert(writes).values(values).returning(writes.c.id)).scalar_one())
        self._ours.add(entry)
        return entry

    def begun(self, entry: int, upload_id: str) -> None:
        """It has become a multipart upload. Raises ``interrupted`` where another process has ended it meanwhile."""
        self._note(entry, upload_id=upload_id)

    def completing(self, entry: int, nbytes: int, digest: str | None) -> None:
        """Everything is sent; from now on there may be an object. Raises ``interrupted`` as ``begun`` does."""
        self._note(entry, nbytes=nbytes, digest=digest)

    def made(self, entry: int) -> None:
        """There is the object. The journal removes the entry when it writes the record of a run that has succeeded."""
        self._ours.discard(entry)

    def close(self, entry: int) -> None:
        """It is over, and nobody needs to be told."""
        with self._database.writing() as connection:
            connection.execute(delete(writes).where(writes.c.id == entry))
        self._ours.discard(entry)

    def leave(self, entry: int) -> None:
        """It could not be ended here: whoever comes next sees to it."""
        with self._database.writing() as connection:
            connection.execute(update(writes).where(writes.c.id == entry).values(owner=None))
        self._ours.discard(entry)

    def abandoned(self) -> list[Write]:
        """What nobody who is alive has to end; but for what may have made the object of a run that is not over: whoever
        takes the run up has to find it."""
        alive = select(owners.c.id)
        with self._database.reading() as connection:
            found = connection.execute(
                select(*_COLUMNS).where(or_(writes.c.owner.is_(None), writes.c.owner.not_in(alive)))
            )
            abandoned = [Write(*row) for row in found]
            unsettled = {
                write: run_of_token(write.token) for write in abandoned if write.nbytes is not None and not write.left
            }
            going = select(runs.c.id).where(runs.c.id.in_(unsettled.values()), runs.c.ended_at.is_(None))
            awaited = set(connection.scalars(going))
        abandoned = [write for write in abandoned if unsettled.get(write) not in awaited]
        self._abandoned = len(abandoned)
        return abandoned

    def uploads_of_others(self, write: Write) -> set[str] | None:
        """The uploads to the same object that other entries know; None while one of them is being begun, as then it is
        not known yet."""
        return self._uploads(writes.c.url == write.url, writes.c.id != write.entry)

    def uploads_beside(self, url: str, token: str) -> set[str] | None:
        """The same for the writer of ``token``. See ``stores.retried.Others``."""
        return self._uploads(writes.c.url == url, writes.c.token != token)

    def _uploads(self, *conditions: ColumnElement[bool]) -> set[str] | None:
        with self._database.reading() as connection:
            columns = select(writes.c.upload_id, writes.c.nbytes, writes.c.owner)
            found = list(connection.execute(columns.where(*conditions)))
            alive = set(connection.scalars(select(owners.c.id)))
        if any(upload_id is None and nbytes is None and owner in alive for upload_id, nbytes, owner in found):
            return None
        return {upload_id for upload_id, _, _ in found if upload_id is not None}

    def of_run(self, run_id: str, attempt: int) -> Write | None:
        """The latest write of a run's result in that attempt."""
        with self._database.reading() as connection:
            token = token_of_run(run_id, attempt)
            found = connection.execute(
                select(*_COLUMNS).where(writes.c.token == token).order_by(writes.c.id.desc())
            ).first()
            return None if found is None else Write(*found)

    def _note(self, entry: int, **values: object) -> None:
        with self._database.writing() as connection:
            if not connection.execute(update(writes).where(writes.c.id == entry).values(**values)).rowcount:
                raise Refusal("interrupted", "another server ended the write: this one did not answer for long")


def end_write(write: Write, store: ObjectStore, key: str, others: Callable[[Write], set[str] | None]) -> bool:
    """Abort what an abandoned write left in its store, and remove the object of one that failed; False if that cannot be
    told yet. Where its upload's id was never
    noted, every upload of that key goes that was begun since then and that is not one of ``others``. Raises what the
    store raises."""
    if write.left and write.nbytes is not None:
        undo(store, key, write.token)
    if write.upload_id is not None:
        with contextlib.suppress(NoSuchUpload):
            store.abort(key, write.upload_id)
        return True
    if write.nbytes is not None:
        return True  # it was put at once
    opened = store.uploads(key)
    known = others(write)  # asked for after the list was made: who began an upload in it has an entry by now
    if known is None:
        return False
    for upload in opened:
        late = upload.began_at >= write.began_at - _MOST_SKEW_S
        if upload.key == key and late and upload.upload_id not in known:
            with contextlib.suppress(NoSuchUpload):
                store.abort(key, upload.upload_id)
    return True
