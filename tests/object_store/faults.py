"""What can go wrong between a client and S3, and when it shall."""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Fault(enum.StrEnum):
    PASS = "pass"
    DROP_REQUEST = "drop_request"
    """The connection ends before the body is read; the server hears nothing."""
    LOSE_REPLY = "lose_reply"
    """The server has done it and has answered; the connection ends before the client hears of it."""
    DELAY_REQUEST = "delay_request"
    """The server gets it late: even if the client, which had sent it, has given up by then."""
    DELAY_REPLY = "delay_reply"
    SLOW_DOWN = "slow_down"
    """503 SlowDown; the server hears nothing."""
    INTERNAL_ERROR = "internal_error"
    """500 InternalError; the server hears nothing."""
    CUT_REPLY = "cut_reply"
    """The connection ends in the middle of the answer's body. If it has none, behind the first line: Python's client
    takes that for an answer without fields, so for a success without ETag."""
    CORRUPT_BODY = "corrupt_body"
    """One bit of the first byte that the client sends is another when it arrives; its checksums are not."""
    ERROR_IN_200_DONE = "error_in_200_done"
    """The server has done it; the client gets status 200 with <Error> for a body, as S3 does it."""
    ERROR_IN_200_NOT_DONE = "error_in_200_not_done"


@dataclass(frozen=True)
class Asked:
    """A request that is about to get a fault, or none."""

    operation: str
    number: int
    """How many requests with this operation came before it."""
    attempt: int
    """How many requests with this method and target came before it."""


class Plan(Protocol):
    def __call__(self, asked: Asked, /) -> Fault: ...


def no_faults(_: Asked) -> Fault:
    return Fault.PASS


@dataclass(frozen=True)
class Script:
    """For each operation what its first, its second, its third request gets; all that follow pass."""

    faults: Mapping[str, Sequence[Fault]]

    def __call__(self, asked: Asked, /) -> Fault:
        listed = self.faults.get(asked.operation, ())
        return listed[asked.number] if asked.number < len(listed) else Fault.PASS


@dataclass(frozen=True)
class Always:
    """The same for each request of an operation."""

    faults: Mapping[str, Fault]

    def __call__(self, asked: Asked, /) -> Fault:
        return self.faults.get(asked.operation, Fault.PASS)


@dataclass(frozen=True)
class Dice:
    """Each request gets one of the faults with the chance ``rate``.

    The seed, the operation and how many of it there were decide, so that it does not matter in which order requests of
    different operations come. The ``attempts``-th try of the same request passes: who retries that often gets through.
    """

    seed: int
    rate: float
    faults: Sequence[Fault] = tuple(fault for fault in Fault if fault is not Fault.PASS)
    operations: Collection[str] = ()
    """All of them, if none is named."""
    attempts: int = 3

    def __call__(self, asked: Asked, /) -> Fault:
        if asked.attempt + 1 >= self.attempts or (self.operations and asked.operation not in self.operations):
            return Fault.PASS
        dice = random.Random(f"{self.seed} {asked.operation} {asked.number}")
        return dice.choice(self.faults) if dice.random() < self.rate else Fault.PASS
