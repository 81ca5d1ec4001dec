"""The server with one more step: ``boom=N`` passes N pages and then raises. For tests only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from app import cli
from app.core.page import Page
from app.stages import STEPS, Step


@dataclass
class Boom:
    left: int
    name: str = "boom"
    holds: int = 0
    grows: float = 0.0
    stateless: bool = False

    def feed(self, page: Page) -> Iterable[Page]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("boom")
        yield page

    def flush(self) -> Iterable[Page]:
        return ()


STEPS["boom"] = Step("boom", "text", "pages", "fails on purpose", int, lambda argument, _: Boom(int(argument)))

if __name__ == "__main__":
    sys.exit(cli.main())
