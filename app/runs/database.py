"""The state that outlives a process: in SQLite beside the spool, or in PostgreSQL, by the same tables."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.core.errors import Refusal

SCHEMA = 1
_BUSY_S = 10.0
_LOCK = 0x57656972  # pg_advisory_xact_lock: "Weir"

_metadata = MetaData()

schema = Table("weir_schema", _metadata, Column("version", Integer, primary_key=True, autoincrement=False))

owners = Table(
    "weir_owners",
    _metadata,
    Column("id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("spool", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)
"""Processes that have runs. One that was not seen for a while is dead, and so is what it had."""

runs = Table(
    "weir_runs",
    _metadata,
    Column("id", String(16), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("cancelling", Boolean, nullable=False),
    Column("idempotency_key", String(255), unique=True),
    Column("fingerprint", String(64)),
    Column("asked", Text),
    Column("record", Text, nullable=False),
    Column("result", Text),
    Column("rejects", Text),
    Index("weir_runs_by_age", "created_at"),
    Index("weir_runs_by_owner", "owner", "state"),
)
"""``asked`` is what it takes to do the run again; ``record``, ``result``, ``rejects`` are what the user sees. JSON."""

writes = Table(
    "weir_writes",
    _metadata,
    Column("id", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    Column("owner", String(64)),
    Column("url", Text, nullable=False),
    Column("token", String(64), nullable=False, index=True),
    Column("began_at", Float, nullable=False),
    Column("upload_id", Text),
    Column("nbytes", BigInteger),
    Column("digest", String(64)),
    sqlite_autoincrement=True,  # else the number of an entry that is closed is given to the next one
)
"""The ledger. A row without an owner is to be ended by whoever comes."""


class Database:
    """Calls block. Writes of this process come one after the other, each durable when its scope is left (SQLite: WAL
    with synchronous=FULL); reads do not wait for them. Raises ``state_failed``."""

    def __init__(self, url: str) -> None:
        """Create the tables where there are none. ``url`` is SQLAlchemy's; see ``sqlite_url``."""
        self._guard = threading.Lock()
        with _translated():
            self._engine = _engine(url)
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":  # several servers may start at once
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                _metadata.create_all(connection)
                found = connection.scalar(select(schema.c.version))
                if found is None:
                    connection.execute(schema.insert().values(version=SCHEMA))
            if found not in (None, SCHEMA):
                raise Refusal("state_failed", f"the state was written by another version of Weir (schema {found})")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed when the scope is left well and rolled back otherwise."""
        with self._guard, _translated(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with; each statement sees what is committed then."""
        with _translated(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, which is created with its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=2, max_overflow=6, pool_pre_ping=True)
    engine = create_engine(url, pool_size=2, max_overflow=6, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={int(_BUSY_S * 1000)}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            # At once for writing: a transaction that begins by reading cannot wait for another's end.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # two at once: whoever writes knows what that means
    except SQLAlchemyError as error:
        raise Refusal("state_failed", f"the state of runs cannot be read or written: {type(error).__name__}") from error
