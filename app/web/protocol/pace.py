"""How long a client may take: plain arithmetic on clocks and counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows a client, in seconds and bytes; 0 means no limit.

    ``header_s``: from the first byte of a request to the end of its head. ``keep_alive_s``: between two requests.
    ``idle_s``: sending, or taking, nothing while the other side waits for it; who still sends need not take.
    ``min_bytes_per_s``: its rate while the other side waits for it, over any ``idle_s``. ``request_s``: from head to the
    end of the answer. ``linger_s``: how long a body that nobody wants any more is read and dropped, so that the client
    gets to see its answer.
    """

    header_s: float = 30.0
    keep_alive_s: float = 75.0
    idle_s: float = 60.0
    min_bytes_per_s: int = 0
    request_s: float = 0.0
    linger_s: float = 30.0


class Pace:
    """Watches one direction of one request. ``look`` is called again and again with how far it has come.

    Only the time that the client owes counts. Time is given by a bucket: it holds ``idle_s``, a second of owing takes
    one out, ``min_bytes_per_s`` that came put one back. So a fast start buys no hours of standing still.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._looked_at: float | None = None
        self._moved_at = 0.0
        self._nbytes = 0
        self._bucket_s = limits.idle_s

    def look(self, now: float, nbytes: int, *, owed: bool) -> Literal["idle", "slow"] | None:
        """What is wrong at ``now`` (a monotonic clock), when ``nbytes`` have passed in all."""
        before, self._looked_at = self._looked_at, now
        moved, self._nbytes = nbytes - self._nbytes, nbytes
        if before is None or not owed or moved:
            self._moved_at = now
        if before is None:
            return None
        limits = self._limits
        if limits.min_bytes_per_s:
            self._bucket_s += moved / limits.min_bytes_per_s - (now - before if owed else 0.0)
            self._bucket_s = min(self._bucket_s, limits.idle_s)
            if owed and self._bucket_s < 0:
                return "slow"
        return "idle" if limits.idle_s and now - self._moved_at > limits.idle_s else None
