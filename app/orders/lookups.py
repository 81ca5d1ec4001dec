"""Lookup tables: loaded when a run first asks for them, shared by all runs, paid for as long as they stay.

A table is loaded anew when its file has changed; runs that hold the old one keep it. One that nobody has asked for in a
while is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from app.core.budget import Budget
from app.core.errors import Refusal, known
from app.core.page import Page
from app.core.units import as_size
from app.framing import FORMATS, Format, ReadOptions, format_of_file_name
from app.pipeline import StageClock
from app.pipeline.push import flush, serve
from app.stages.enrich import Enrichment
from app.stages.lookup import Lookup
from app.stores.catalogue import Located, Stores

_MIB = 1024 * 1024
_PIECE_BYTES = _MIB
_INFERENCE_BYTES = 16 * _MIB
_IDLE_S = 600.0
_GROWTH = 4
"""What is set aside at first, by the bytes of the file: its text, its rows, and these once more as they are joined."""
_SUFFIXES = tuple(suffix for format in FORMATS.values() if format.kind == "rows" for suffix in format.suffixes)


@dataclass(frozen=True, slots=True)
class _Version:
    """A file as it is now; ``stamp`` changes when it does."""

    place: Path | Located
    format: Format
    nbytes: int
    stamp: str


@dataclass(slots=True)
class _Loaded:
    """A table with what was set aside for it."""

    version: _Version
    lookup: Lookup
    paid_bytes: int
    loaded_at: str
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)


class Lookups:
    """The tables ``NAME.csv``, ``.tsv``, ``.ndjson``, ``.parquet``, ``.arrow`` below ``root``, a directory or an S3 prefix;
    none where it is None. Its calls belong to the event loop; files are read on ``executor``."""

    def __init__(
        self, root: str | None, stores: Stores, budget: Budget, executor: Executor, *, max_line_bytes: int
    ) -> None:
        self._root = root
        self._stores = stores
        self._budget = budget
        self._executor = executor
        self._max_line_bytes = max_line_bytes
        self._loaded: dict[str, _Loaded] = {}
        self._errors: dict[str, str] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, wanted: Sequence[Enrichment]) -> AsyncIterator[dict[str, Lookup]]:
        """The tables of ``wanted``, with the indices that they need, for the time of the scope.

        Raises ``bad_argument`` for a table or column that is not there, ``bad_lookup`` for one that cannot be used,
        ``budget_full`` or ``never_fits`` where there is no room for it.
        """
        held: dict[str, _Loaded] = {}
        try:
            self._let_go()
            for asked in wanted:
                if asked.table not in held:
                    held[asked.table] = await self._latest(asked.table)
                    held[asked.table].users += 1
                await self._with_index(held[asked.table], asked)
            yield {name: loaded.lookup for name, loaded in held.items()}
        finally:
            for name, loaded in held.items():
                loaded.users -= 1
                loaded.used_at = time.monotonic()
                if self._loaded.get(name) is not loaded and not loaded.users:
                    self._budget.give_back(loaded.paid_bytes)

    async def describe(self) -> list[dict[str, Any]]:
        """What there is: every file of a directory, and all that is loaded."""
        names = await self._off_loop(self._names)
        return [self._described(name) for name in sorted({*names, *self._loaded})]

    async def _latest(self, name: str) -> _Loaded:
        async with self._loading.setdefault(name, asyncio.Lock()):
            version = await self._off_loop(self._version, name)
            loaded = self._loaded.get(name)
            if loaded is None or loaded.version.stamp != version.stamp:
                try:
                    fresh = await self._load(name, version)
                except Refusal as refusal:
                    self._errors[name] = refusal.detail
                    raise
                self._errors.pop(name, None)
                self._forget(name)
                self._loaded[name] = loaded = fresh
            return loaded

    async def _load(self, name: str, version: _Version) -> _Loaded:
        room_bytes, lookup = _GROWTH * version.nbytes + _MIB, None
        while lookup is None:
            self._set_aside(name, room_bytes)
            try:
                lookup = await self._off_loop(self._read, name, version, room_bytes)
            finally:
                self._budget.give_back(room_bytes)
            room_bytes *= 2
        self._set_aside(name, lookup.nbytes)
        return _Loaded(version, lookup, lookup.nbytes, datetime.now(UTC).isoformat(timespec="seconds"))

    async def _with_index(self, loaded: _Loaded, asked: Enrichment) -> None:
        lookup = loaded.lookup
        keys = [lookup.column(right) for _, right in asked.on]
        async with self._loading[asked.table]:
            await self._off_loop(lookup.index, keys)
            more = lookup.nbytes - loaded.paid_bytes
            if more > 0:
                self._set_aside(asked.table, more)
                loaded.paid_bytes += more

    def _set_aside(self, name: str, nbytes: int) -> None:
        try:
            self._budget.set_aside(nbytes)
        except Refusal as refusal:
            refusal.detail = f"the lookup table {name} needs {as_size(nbytes)}: {refusal.detail}"
            raise

    def _forget(self, name: str) -> None:
        loaded = self._loaded.pop(name, None)
        if loaded is not None and not loaded.users:
            self._budget.give_back(loaded.paid_bytes)

    def _let_go(self) -> None:
        oldest = time.monotonic() - _IDLE_S
        for name in [name for name, one in self._loaded.items() if not one.users and one.used_at < oldest]:
            self._forget(name)

    def _described(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = {"name": name}
        if (loaded := self._loaded.get(name)) is not None:
            table = loaded.lookup.table
            told |= {
                "format": loaded.version.format.name,
                "file_bytes": loaded.version.nbytes,
                "rows": table.num_rows,
                "columns": {field.name: str(field.type) for field in table.schema},
                "held_bytes": loaded.paid_bytes,
                "loaded_at": loaded.loaded_at,
                "runs": loaded.users,
            }
        if name in self._errors:
            told["error"] = self._errors[name]
        return told

    async def _off_loop(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    # What follows runs on a thread.

    def _names(self) -> list[str]:
        if self._root is None or "://" in self._root:
            return []
        try:
            return [path.stem for path in Path(self._root).iterdir() if path.name.endswith(_SUFFIXES)]
        except OSError:
            return []

    def _version(self, name: str) -> _Version:
        if self._root is None:
            raise Refusal("bad_argument", f"there is no lookup table {name[:80]!r}: LOOKUPS_DIR is not set")
        for suffix in _SUFFIXES:
            found = self._look(name + suffix)
            if found is not None:
                return found
        names = known(sorted(self._names())) or "none"
        raise Refusal("bad_argument", f"there is no lookup table {name[:80]!r}; known are {names}")

    def _look(self, file_name: str) -> _Version | None:
        assert self._root is not None
        format = format_of_file_name(file_name)
        assert format is not None
        if "://" in self._root:
            located = self._stores.reopen(f"{self._root.rstrip('/')}/{file_name}", threading.Event())
            try:
                info = located.store.head(located.key)
            except Refusal as refusal:
                if refusal.code in ("not_found", "forbidden"):
                    return None
                raise
            return _Version(located, format, info.nbytes, info.etag)
        path = Path(self._root) / file_name
        try:
            seen = path.stat()
        except OSError:
            return None
        return _Version(path, format, seen.st_size, f"{seen.st_mtime_ns}-{seen.st_size}-{seen.st_ino}")

    def _read(self, name: str, version: _Version, room_bytes: int) -> Lookup | None:
        """None if ``room_bytes`` do not suffice."""
        data = _bytes_of(version)
        batches, held_bytes = [], len(data)
        options = ReadOptions(
            page_bytes=max(_PIECE_BYTES, min(len(data), _INFERENCE_BYTES)),
            max_line_bytes=self._max_line_bytes,
            whole_bytes=room_bytes,
            types={},
        )
        try:
            for page in _pages(version.format, data, options):
                if page.rejects:
                    bad = page.rejects[0]
                    raise Refusal(bad.code, f"line {bad.line}, byte {bad.byte}: {bad.detail}")
                held_bytes += 2 * page.nbytes
                if held_bytes > room_bytes:
                    return None
                batches.append(page.payload)
        except Refusal as refusal:
            if refusal.code == "page_too_large":
                return None
            raise Refusal("bad_lookup", f"the lookup table {name}: {refusal.detail}") from None
        return Lookup(name, pa.concat_batches(batches))


class _Bytes:
    """See ``RandomAccess``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        return self._data[offset : offset + nbytes]


def _bytes_of(version: _Version) -> bytes:
    if isinstance(version.place, Path):
        try:
            return version.place.read_bytes()
        except OSError as error:
            raise Refusal("bad_lookup", f"{version.place.name} cannot be read: {error.strerror}") from None
    store, key = version.place.store, version.place.key
    pieces = store.read(key, offset=0, nbytes=version.nbytes, etag=version.stamp, piece_bytes=_PIECE_BYTES)
    return b"".join(pieces)


def _pages(format: Format, data: bytes, options: ReadOptions) -> Iterator[Page]:
    if format.read_file is not None:
        yield from format.read_file(_Bytes(data), options)
        return
    if format.read is None:
        raise Refusal("unknown_format", f"{format.name} can only be written")
    stages = tuple(format.read(options))
    clocks = [StageClock(stage.name) for stage in stages]
    for start in range(0, len(data), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        yield from serve(stages, clocks, [Page(piece, len(piece), byte=start, first=start == 0)])
    yield from flush(stages, clocks, 0)
