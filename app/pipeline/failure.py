"""How a failed run ends: with its first cause, and without the pages that were in its hands."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from app.core.errors import Refusal
from app.core.frames import clear_frames


async def clean(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; if it fails, or is cancelled, let go of the pages in the frames that the exception remembers: they
    would stay until it is collected."""
    try:
        await work
    except BaseException as error:
        clear_frames(error)
        raise


def cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it: the first refusal, or else the first of all."""
    flat: list[BaseException] = []
    todo: list[BaseException] = [failures]
    while todo:
        failure = todo.pop(0)
        if isinstance(failure, BaseExceptionGroup):
            todo[:0] = failure.exceptions
        else:
            flat.append(failure)
    return next((failure for failure in flat if isinstance(failure, Refusal)), flat[0])
