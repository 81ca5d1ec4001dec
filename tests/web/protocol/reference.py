"""The chunked coding read byte by byte, as slowly and plainly as its grammar stands in RFC 9112: what ours must equal."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
HEX = frozenset(b"0123456789abcdefABCDEF")
TEXT = frozenset([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
MOST_BYTES = 16 * 1024


class Bad(Exception):
    pass


class Short(Exception):
    pass


@dataclass
class Reader:
    data: bytes
    at: int = 0

    def look(self) -> int:
        if self.at == len(self.data):
            raise Short
        return self.data[self.at]

    def one_of(self, allowed: frozenset[int]) -> int:
        byte = self.look()
        if byte not in allowed:
            raise Bad
        self.at += 1
        return byte

    def line_end(self) -> None:
        self.one_of(frozenset(b"\r"))
        self.one_of(frozenset(b"\n"))

    def run_of(self, allowed: frozenset[int]) -> bytes:
        start = self.at
        self.one_of(allowed)
        while self.look() in allowed:
            self.at += 1
        return self.data[start : self.at]


def read(data: bytes) -> tuple[bytes, bytes | None, bool]:
    """The payload that is certain, what stands behind the end (None before it), and whether the rest is refused."""
    reader, payload, extensions = Reader(data), bytearray(), 0
    try:
        while True:
            size_text = reader.run_of(HEX)
            if len(size_text) > 15:
                raise Bad
            before = reader.at
            while reader.look() == ord(";"):
                reader.at += 1
                extension(reader)
            extensions += reader.at - before
            reader.line_end()
            if extensions > MOST_BYTES or reader.at - before > MOST_BYTES - 32:
                raise Bad
            size = int(size_text, 16)
            if size == 0:
                trailers(reader)
                return bytes(payload), data[reader.at :], False
            there = data[reader.at : reader.at + size]
            payload += there
            reader.at += len(there)
            if len(there) < size:
                raise Short
            reader.line_end()
    except Bad:
        return bytes(payload), None, True
    except Short:
        return bytes(payload), None, False


def extension(reader: Reader) -> None:
    reader.run_of(TOKEN)
    if reader.look() != ord("="):
        return
    reader.at += 1
    if reader.look() != ord('"'):
        reader.run_of(TOKEN)
        return
    reader.at += 1
    while (byte := reader.one_of(TEXT)) != ord('"'):
        if byte == ord("\\"):
            reader.one_of(TEXT)


def trailers(reader: Reader) -> None:
    start = reader.at
    while reader.look() != ord("\r"):
        name = reader.run_of(TOKEN)
        reader.one_of(frozenset(b":"))
        while reader.look() in TEXT:
            reader.at += 1
        reader.line_end()
        if name.lower() in (b"content-length", b"transfer-encoding") or reader.at - start > MOST_BYTES:
            raise Bad
    reader.line_end()
