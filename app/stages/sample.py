"""A share of the records."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pyarrow as pa

from app.core.errors import Refusal
from app.core.page import Page
from app.stages.records import chosen, count

_SEED = 20261123


class Sample:
    """Keeps each record with probability ``share``, independently of the others (Bernoulli sampling).

    Which ones depends on nothing but their place in the stream: the same input gives the same sample, however it is
    cut into pages.
    """

    name = "sample"
    holds = 4096
    grows = 2.0
    stateless = False

    def __init__(self, share: float) -> None:
        self._share = share
        self._chance = random.Random(_SEED)

    def feed(self, page: Page) -> Iterable[Page]:
        """The chosen records of the page, maybe none."""
        draw, share = self._chance.random, self._share
        yield chosen(page, pa.array([draw() < share for _ in range(count(page))], pa.bool_()))

    def flush(self) -> Iterable[Page]:
        """Nothing."""
        return ()


def parse_share(text: str) -> float:
    """A share above 0 and up to 1, as ``0.01`` or ``1%``. Raises ``bad_argument``."""
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise Refusal("bad_argument", f"{text[:80]!r} is not a share of the records such as 0.01 or 1%")
    return share
