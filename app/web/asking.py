"""A pipeline as a request spells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.plan import Plan, plan_of_query, plan_of_text, with_pipeline
from app.stores.pipelines import stored_pipeline


@dataclass(frozen=True, slots=True)
class Asked:
    """The plan, the words and steps it is made of, and the text of the stored pipeline that they name."""

    plan: Plan
    items: tuple[tuple[str, str], ...]
    stored: str | None = None


async def ask(items: tuple[tuple[str, str], ...], pipelines_dir: Path | None) -> Asked:
    """What words and steps spell."""
    plan = plan_of_query(items)
    if plan.pipeline is None:
        return Asked(plan, items)
    text = await stored_pipeline(pipelines_dir, plan.pipeline)
    return Asked(with_pipeline(plan, plan_of_text(text, plan.pipeline)), items, text)
