"""What the wire is fed: one block of lower-case UTF-8 text, again and again. Made once, kept in the cache's folder."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from pathlib import Path

from bench.inputs import WORDS, cache_folder

BLOCK_BYTES = 4 << 20


@cache
def block_file() -> Path:
    """The block as a file: lines of text, which end with it."""
    path = cache_folder() / "block.txt"
    if not path.exists():
        draw = random.Random(4)
        words = WORDS.lower().split()
        text = bytearray()
        while len(text) < BLOCK_BYTES:
            text += (" ".join(draw.choices(words, k=draw.randint(1, 20))) + "\n").encode()
        whole_lines = text[: text.rindex(b"\n", 0, BLOCK_BYTES) + 1]
        _write(path, [bytes(whole_lines.ljust(BLOCK_BYTES, b"\n"))])
    return path


def folder() -> Path:
    """Where the servers write what is uploaded, and find what is downloaded."""
    path = cache_folder() / "files"
    path.mkdir(exist_ok=True)
    return path


def file_of(mib: int) -> Path:
    """The block again and again, ``mib`` MiB of it."""
    path = folder() / f"block-{mib}.txt"
    if not path.exists():
        _write(path, _pieces(mib))
    return path


@cache
def digest(mib: int, *, upper: bool = False) -> str:
    """SHA-256 of ``mib`` MiB of it, or of their ASCII upper case."""
    found = hashlib.sha256()
    for piece in _pieces(mib):
        found.update(piece.upper() if upper else piece)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(mib: int) -> list[bytes]:
    whole, rest = divmod(mib << 20, BLOCK_BYTES)
    block = block_file().read_bytes()
    return [block] * whole + ([block[:rest]] if rest else [])


def _write(path: Path, pieces: list[bytes]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.writelines(pieces)
    partial.rename(path)
