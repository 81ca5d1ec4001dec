"""What failures keep alive."""

from __future__ import annotations

import traceback


def clear_frames(error: BaseException) -> None:
    """Let go of all that is in the frames which an exception, and those that caused it, remember: pages would stay there
    until they are collected as garbage, and longer where somebody keeps the exception. Frames at work are left alone."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        failure = todo.pop()
        if failure is None or id(failure) in seen:
            continue
        seen.add(id(failure))
        traceback.clear_frames(failure.__traceback__)
        todo += [failure.__cause__, failure.__context__]
        if isinstance(failure, BaseExceptionGroup):
            todo += failure.exceptions
