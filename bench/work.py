"""What is compared, as the runner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bench.client import Sample
from bench.servers import Server


class Work(Protocol):
    """One work that several servers can do, each in its own way.

    ``nbytes`` are those of the input, or of the answer where there is no input; ``rows`` those of a table. Whatever
    fails raises ``client.Failed``, or ``compiler.Absent`` where the client cannot run.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def rows(self) -> int | None: ...

    @property
    def references(self) -> Sequence[str]:
        """Keys of ``tables.references.REFERENCES``: engines that do the same without a server."""
        ...

    def offered_by(self, key: str) -> bool:
        """The contender ``key`` of ``kinds.KINDS`` takes part."""
        ...

    def prepare(self, key: str, server: Server) -> None:
        """What a server needs before its first transfer; may be called again."""
        ...

    def is_right(self, key: str, server: Server) -> bool:
        """Do it once, untimed, and look at the whole answer."""
        ...

    def take(self, key: str, server: Server) -> float:
        """Do it, and return the seconds that it took."""
        ...

    def finish(self) -> None:
        """Remove what servers left on the disk."""
        ...

    def refer(self, key: str) -> Sample:
        """Let a reference do it."""
        ...

    def is_reference_right(self, key: str) -> bool:
        """What the reference has just written is right."""
        ...
