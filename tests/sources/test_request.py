"""The reader of a request's body: pages of the right size wherever the messages are cut, limits, and leaving."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.sources.request import RequestBody


class Messages:
    def __init__(self, pieces: Sequence[bytes | float], *, ends: bool = True) -> None:
        self.left = list(pieces)
        self.ends = ends

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.left and isinstance(self.left[0], float):
            await asyncio.sleep(float(self.left.pop(0)))
        if self.left:
            body = self.left.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.left) or not self.ends}
        if self.ends:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


def reader(messages: Messages, page_bytes: int = 10, most: int = 1000, idle_s: float = 5) -> RequestBody:
    return RequestBody(messages, page_bytes=page_bytes, max_body_bytes=most, idle_s=idle_s)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=20), st.integers(1, 40), st.booleans())
def test_pages_are_the_body_in_order(pieces: list[bytes], page_bytes: int, peeks: bool) -> None:
    async def main() -> None:
        body, data = reader(Messages(pieces), page_bytes), b"".join(pieces)
        if peeks:
            start = await body.peek()
            assert data.startswith(start)
            assert start or not data
        pages = [page async for page in body.pages()]
        assert b"".join(page.payload for page in pages) == data
        assert all(page.nbytes <= page_bytes for page in pages)
        starts = [0, *accumulate(page.nbytes for page in pages)]
        assert [page.byte for page in pages] == starts[:-1]
        if not peeks:
            assert all(page.nbytes == page_bytes for page in pages[:-1])
        assert [page.first for page in pages] == [n == 0 for n in range(len(pages))]
        assert not body.open
        body.close()

    asyncio.run(main())


async def test_a_page_does_not_wait_for_a_sender_that_pauses() -> None:
    body = reader(Messages([b"abc", 0.05, b"def"]), page_bytes=100)
    assert [page.payload async for page in body.pages()] == [b"abc", b"def"]


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (Messages([b"x" * 600, b"x" * 600]), "body_too_large"),
        (Messages([b"x"], ends=False), "client_gone"),
        (Messages([b"x", 1.0, b"y"]), "too_slow"),
    ],
)
async def test_what_ends_a_body_badly(messages: Messages, code: str) -> None:
    body = reader(messages, idle_s=0.05)
    with pytest.raises(Refusal) as refused:
        _ = [page async for page in body.pages()]
    assert refused.value.code == code
    body.close()


async def test_the_leaving_is_seen_after_the_end_and_not_before() -> None:
    class Leaves(Messages):
        async def __call__(self) -> MutableMapping[str, Any]:
            return await super().__call__() if self.left else {"type": "http.disconnect"}

    body = reader(Leaves([b"abc", b"def"]))
    watch = asyncio.create_task(body.wait_gone())
    await asyncio.sleep(0.01)
    assert not watch.done()
    assert [page.payload async for page in body.pages()] == [b"abcdef"]
    await asyncio.wait_for(watch, 1)
