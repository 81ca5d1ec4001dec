"""What was asked for, in full: enough to do it without the request, and to do it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from app.plan import FORMATS, Plan, plan_of_query, plan_of_text, with_pipeline


@dataclass(frozen=True, slots=True)
class Order:
    """``items`` are the words and steps as in a URL, ``stored`` the text of the pipeline that they name. ``body`` is the
    place of the input if that came with the request, ``input`` its URL if it is in a store. ``source`` and ``target``
    name the formats, ``reading`` are the words about how the input is written. ``codings`` are to be undone on it,
    outermost first, ``coding`` is put on the result, whose SHA-256 is wanted if ``hashed`` (kept results always have
    one)."""

    items: tuple[tuple[str, str], ...]
    stored: str | None
    body: str | None
    input: str | None
    source: str
    target: str
    codings: tuple[str, ...] = ()
    coding: str | None = None
    overwrite: bool = True
    hashed: bool = False
    reading: Mapping[str, str] = field(default_factory=dict)

    def plan(self) -> Plan:
        """The pipeline, with both formats known."""
        plan = plan_of_query(self.items)
        if self.stored is not None and plan.pipeline is not None:
            plan = with_pipeline(plan, plan_of_text(self.stored, plan.pipeline))
        return replace(
            plan,
            source=FORMATS[self.source],
            target=FORMATS[self.target],
            overwrite=self.overwrite,
            reading={**plan.reading, **self.reading},
        )

    def text(self) -> str:
        """Itself as JSON."""
        return json.dumps(asdict(self))


def order_of_text(text: str) -> Order:
    """The order that ``Order.text`` gave."""
    values = json.loads(text)
    items = tuple((name, value) for name, value in values.pop("items"))
    return Order(**values | {"items": items, "codings": tuple(values.pop("codings"))})
