"""Puts the steps that are installed beside Weir into its catalogue."""

from __future__ import annotations

import logging
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

from app.core.errors import Refusal
from app.core.interfaces import Operator, Stage
from app.plan import WORDS
from app.stages import STEPS, StageContext, Step
from app.stages.user import GROUP, UserStage, UserStep
from app.stages.user_process import UserProcess

log = logging.getLogger("weir")


def install_user_steps() -> None:
    """Read the entry points, once. One that cannot be loaded stays in the catalogue, and is refused with the reason."""
    for entry in entry_points(group=GROUP):
        if entry.name in WORDS or (entry.name in STEPS and STEPS[entry.name].does not in _OURS):
            log.error("the step %s of %s has the name of one of Weir's: it is left out", entry.name, entry.value)
        else:
            STEPS[entry.name] = _step(entry)


def _step(entry: EntryPoint) -> Step:
    try:
        found = entry.load()
        if not isinstance(found, UserStep):
            if not callable(found):
                raise TypeError(f"it is a {type(found).__name__}, and no callable")
            found = UserStep(found)
    except Exception as error:
        log.exception("the step %s cannot be loaded from %s", entry.name, entry.value)
        return Step(entry.name, "rows", None, _BROKEN, partial(_refuse, entry.name, str(error)), _never)
    takes = "text" if found.takes == "bytes" else found.takes
    argument = "text" if found.argument else None
    return Step(entry.name, takes, argument, _INSTALLED, found.bound, partial(_made, entry.name, found))


def _made(name: str, user: UserStep, argument: str, context: StageContext) -> Stage | Operator:
    kind = UserProcess if user.process else UserStage
    return kind(name, user, argument, page_bytes=context.page_bytes)


def _refuse(name: str, reason: str, argument: str) -> NoReturn:
    raise Refusal("bad_pipeline", f"the step {name} cannot be loaded: {reason[:300]}")


def _never(argument: str, context: StageContext) -> NoReturn:
    raise AssertionError("it was refused before")


_INSTALLED = "a step that is installed beside Weir"
_BROKEN = "a step that cannot be loaded"
_OURS = (_INSTALLED, _BROKEN)
