"""Memory that is not given the GIL up for: Arrow's allocation does, and then waits longer to have it back than it takes."""

from __future__ import annotations

import ctypes

import pyarrow as pa

_new = ctypes.pythonapi.PyBytes_FromStringAndSize
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)


def unset_bytes(nbytes: int) -> bytes:
    """Bytes with anything in them, to be written to before anybody else has them: as C extensions do."""
    made: bytes = _new(None, nbytes)
    return made


def unset_buffer(nbytes: int) -> pa.Buffer:
    """The same, for Arrow."""
    return pa.py_buffer(unset_bytes(nbytes))
