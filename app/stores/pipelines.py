"""Pipelines that the operator has stored as documents, by name."""

from __future__ import annotations

from pathlib import Path

import aiofiles
import aiofiles.os

from app.core.errors import Refusal, known

_SUFFIXES = (".yaml", ".yml", ".json")


async def stored_pipeline(directory: Path | None, name: str) -> str:
    """The text of ``NAME.yaml``, ``.yml`` or ``.json`` in ``directory``; ``bad_pipeline`` that lists all otherwise, or
    tells why it cannot be read.

    Read anew each time, off the event loop: the directory may be a network mount that is replaced under the server.
    """
    found = sorted(await aiofiles.os.listdir(directory)) if directory is not None else []
    stored = [Path(entry) for entry in found if entry.endswith(_SUFFIXES)]
    for path in stored:
        if path.stem == name and directory is not None:
            try:
                async with aiofiles.open(directory / path, encoding="utf-8") as file:
                    return await file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise Refusal("bad_pipeline", f"the pipeline {path} cannot be read: {error}") from error
    names = known(path.stem for path in stored) or "none"
    raise Refusal("bad_pipeline", f"there is no stored pipeline {name[:80]!r}; known are {names}")
