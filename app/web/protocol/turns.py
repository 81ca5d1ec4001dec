"""How much is received before everybody else on the loop gets a turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Lets connections receive one after the other: those that begin in one turn of the loop, ``most_bytes`` together.

    Were each taken up as soon as it wants, a turn would last as long as the pages of all of them, and so would the wait
    of a request that needs only to be looked at. Nobody waits for one who has nothing to receive: his turn is short.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = self._left_bytes = most_bytes
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._is_due = False

    def ask(self, begin: Callable[[], None], nbytes: int) -> None:
        """Have ``begin`` called, now or in a later turn of the loop, for whoever will receive up to ``nbytes``. It is
        called even if that has become pointless meanwhile."""
        self._waiting.append((begin, nbytes))
        self._give()

    def _give(self) -> None:
        while self._waiting and self._left_bytes > 0:
            begin, nbytes = self._waiting.popleft()
            self._left_bytes -= nbytes
            begin()
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_due = False
        self._left_bytes = self._most_bytes
        self._give()
