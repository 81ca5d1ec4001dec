"""Memory that a thread works in and then again: to allocate gives up the GIL, and waits to have it back."""

from __future__ import annotations

import threading
from typing import cast

import pyarrow as pa

SCRATCH_BYTES = 1280 * 1024
"""What a thread keeps for the next call: where the records of a block of 2 MiB end, and the fields of most."""


class _Kept(threading.local):
    buffer: pa.Buffer | None = None


_kept = _Kept()


def scratch(nbytes: int) -> pa.Buffer:
    """At least ``nbytes``, with anything in it, which are the caller's until its thread asks again."""
    if nbytes > SCRATCH_BYTES:
        return pa.allocate_buffer(nbytes)
    if _kept.buffer is None:
        _kept.buffer = pa.allocate_buffer(SCRATCH_BYTES)
    return cast("pa.Buffer", _kept.buffer)
