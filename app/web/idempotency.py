"""A request that comes again gets the run that it got first (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

import hashlib

from app.core.errors import Refusal
from app.runs.book import Book, Entry
from app.runs.record import Run

MOST_CHARACTERS = 255


async def opened(book: Book, run: Run, key: str, *asked_for: str, asked: str | None = None) -> Entry:
    """An entry for ``run``, whose order is ``asked``; or that of the first run that had this Idempotency-Key and was
    ``asked_for`` the same, word for word. With a key it is durable. Raises ``key_reused`` where that was another thing."""
    if not key:
        return book.add(run, asked)
    if len(key) > MOST_CHARACTERS:
        raise Refusal("bad_argument", f"the Idempotency-Key is longer than {MOST_CHARACTERS} characters")
    fresh = Entry(run, asked=asked)
    fingerprint = hashlib.sha256("\0".join(asked_for).encode()).hexdigest()
    return await book.claim(fresh, key, fingerprint) or fresh
