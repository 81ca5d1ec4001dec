"""Bytes that are joined without the GIL: a page is copied in 0.2 ms, in which others can run."""

from __future__ import annotations

import ctypes

import pyarrow as pa

from app.core.unset import unset_bytes
from app.framing.native import LIBRARY, Piece

_LEAST_BYTES = 64 * 1024
"""Below, to give the GIL up and to have it back costs more."""


def joined(*pieces: bytes | bytearray | memoryview) -> bytes:
    """``pieces``, one behind the other."""
    nbytes = sum(map(len, pieces))
    if LIBRARY is None or nbytes < _LEAST_BYTES:
        return b"".join(pieces)
    made = unset_bytes(nbytes)
    buffers = [pa.py_buffer(piece) for piece in pieces]
    places = (Piece * len(buffers))(*[Piece(buffer.address, buffer.size) for buffer in buffers])
    LIBRARY.weir_join(pa.py_buffer(made).address, ctypes.addressof(places), len(places))
    return made
