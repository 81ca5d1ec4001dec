"""Memory with anything in it, to be written to before anybody else has it, as C extensions make theirs: to fill it with
zeros takes as long as to receive a page."""

from __future__ import annotations

import ctypes

_Maker = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)
_new_bytes = _Maker(("PyBytes_FromStringAndSize", ctypes.pythonapi))
_new_bytearray = _Maker(("PyByteArray_FromStringAndSize", ctypes.pythonapi))


def unset_bytes(nbytes: int) -> bytes:
    """For C, which writes to it. The GIL is not given up for it: Arrow's allocation does that, and then waits longer to
    have it back than it takes."""
    made: bytes = _new_bytes(None, nbytes)
    return made


def unset_bytearray(nbytes: int) -> bytearray:
    """The same, for who writes from Python."""
    made: bytearray = _new_bytearray(None, nbytes)
    return made
