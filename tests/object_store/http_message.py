"""HTTP/1.1 messages as they stand on the wire: read by their framing, and passed on byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Head:
    raw: bytes
    first_line: tuple[str, str, str]
    """Method, target and version; or version, status and reason."""
    fields: dict[str, str]
    """By the name in lower case."""

    def is_chunked(self) -> bool:
        return "chunked" in self.fields.get("transfer-encoding", "").lower()

    def length_bytes(self) -> int | None:
        return int(self.fields["content-length"]) if "content-length" in self.fields else None

    def is_last(self) -> bool:
        """Whether the connection ends behind this message."""
        return self.fields.get("connection", "").lower() == "close"


@dataclass(frozen=True)
class Piece:
    raw: bytes
    is_data: bool = True
    """Else it is a line of the chunked coding."""


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """None if the connection ended instead."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    one, two, three = [*first.split(" ", 2), ""][:3]
    pairs = (line.partition(":") for line in lines)
    return Head(raw, (one, two, three), {name.lower(): value.strip() for name, _, value in pairs})


async def read_body(reader: asyncio.StreamReader, head: Head, *, until_end: bool = False) -> AsyncIterator[Piece]:
    """The body behind the head; ``until_end`` says that one of unknown length lasts until the connection ends."""
    if head.is_chunked():
        async for piece in read_chunks(reader):
            yield piece
    elif (length_bytes := head.length_bytes()) is not None:
        async for piece in read_counted(reader, length_bytes):
            yield piece
    elif until_end:
        while raw := await reader.read(PIECE_BYTES):
            yield Piece(raw)


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[Piece]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield Piece(line, is_data=False)
        size_bytes = int(line.split(b";")[0], 16)
        if not size_bytes:
            break
        async for piece in read_counted(reader, size_bytes):
            yield piece
        yield Piece(await reader.readexactly(2), is_data=False)
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        yield Piece(line, is_data=False)


async def read_counted(reader: asyncio.StreamReader, left_bytes: int) -> AsyncIterator[Piece]:
    while left_bytes:
        raw = await reader.read(min(PIECE_BYTES, left_bytes))
        if not raw:
            raise asyncio.IncompleteReadError(b"", left_bytes)
        left_bytes -= len(raw)
        yield Piece(raw)
