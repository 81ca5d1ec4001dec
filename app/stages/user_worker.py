"""The process that a user's step runs in: ``python -m app.stages.user_worker NAME ARGUMENT MEMORY_BYTES PARENT FDS…``."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import sys
import traceback
from importlib.metadata import entry_points
from typing import Any

import pyarrow as pa

from app.stages.user import GROUP, UserStep
from app.stages.user_process import FRAME, put, taken

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(words: list[str]) -> None:
    """Serve pages until the parent closes its pipe, or is gone."""
    name, argument, memory_bytes, parent = words[0], words[1], int(words[2]), int(words[3])
    there, back, asked, answered = map(int, words[4:])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    pa.set_cpu_count(1)
    with mmap.mmap(there, 0) as to, mmap.mmap(back, 0) as fro:
        try:
            user = loaded(name)
            call = user.bound(argument)
            os.write(answered, FRAME.pack(b"S", 0))
            while (frame := os.read(asked, FRAME.size)) and (nbytes := FRAME.unpack(frame)[1]) >= 0:
                page = taken(to[:nbytes], user.takes)
                for result in _results(call(page), user.takes):
                    os.write(answered, FRAME.pack(b"R", put(fro, result, user.takes)))
                    if not os.read(asked, FRAME.size):
                        return
                os.write(answered, FRAME.pack(b"D", 0))
        except BrokenPipeError:
            return
        except BaseException as error:
            traceback.print_exc()
            detail = f"{type(error).__name__}: {error}"[:500].encode()[:2000]
            os.write(answered, FRAME.pack(b"E", len(detail)) + detail)


def loaded(name: str) -> UserStep:
    """The step that is installed as ``name``."""
    (found,) = entry_points(group=GROUP, name=name)
    step = found.load()
    return step if isinstance(step, UserStep) else UserStep(step)


def _results(made: Any, takes: str) -> Any:
    single = (pa.RecordBatch, pa.Table) if takes == "rows" else (bytes, bytearray, memoryview)
    if made is None:
        return
    for result in (made,) if isinstance(made, single) else made:
        if isinstance(result, pa.Table):
            yield from result.combine_chunks().to_batches()
        elif isinstance(result, single):
            yield result
        else:
            wanted = "a pyarrow.RecordBatch" if takes == "rows" else "bytes"
            raise TypeError(f"it gave a {type(result).__name__}; a step gives {wanted}, several, or None")


if __name__ == "__main__":
    main(sys.argv[1:])
