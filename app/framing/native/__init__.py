"""The library in C, which is built with the package (``hatch_build.py``); None where there was no compiler.

On x86-64 it is built twice: for every processor, and for those with AVX2. It is called by ctypes, which gives the GIL up
meanwhile. What uses it has a way without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.resources import files

_PLACE, _INT64, _INT32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_UINT64 = ctypes.c_uint64
_CALLS: dict[str, tuple[type | None, ...]] = {
    # The result, then the arguments; what each is stands in the sources.
    "weir_has_avx2": (_INT32,),
    "weir_join": (None, _PLACE, _PLACE, _INT64),
    "weir_unchunk": (_INT64, _PLACE, _INT64, _INT64, _PLACE),
    "weir_csv_record_ends": (_INT64, _PLACE, _INT64, _INT32, _INT32, _INT64, _PLACE, _PLACE),
    "weir_csv_split": (_INT64, _PLACE, _INT64, _INT32, _INT32, _INT32, _PLACE, _INT64, _PLACE, _PLACE),
    "weir_csv_split_regular": (
        *(_INT64, _PLACE, _INT64, _INT32, _INT32, _INT32, _PLACE, _INT64, _PLACE, _PLACE, _PLACE),
    ),
    "weir_index": (_INT64, _PLACE, _PLACE, _UINT64),
    "weir_find": (_INT64, _PLACE, _PLACE, _PLACE, _UINT64, _PLACE, _PLACE, _PLACE, _PLACE),
    "weir_gather": (None, _PLACE, _INT32, _INT64, _PLACE),
    "weir_groups_index": (None, _PLACE),
    "weir_groups_add": (_INT64, _PLACE, _PLACE, _PLACE, _PLACE, _INT64, _INT64),
    "weir_groups_keys": (None, _PLACE, _PLACE),
    "weir_groups_total": (_INT32, _PLACE, _PLACE, _PLACE, _INT32),
    "weir_panes": (_INT64, _PLACE, _PLACE, _INT64, _PLACE),
    "weir_csv_columns": (_INT32, _PLACE, _INT64, _INT64, _INT32, _INT32, _INT32, _INT64, _INT32, _PLACE),
    "weir_json_rows": (_INT64, _PLACE, _INT64, _PLACE, _INT32, _INT64),
    "weir_json_texts": (None, _PLACE, _INT64, _PLACE, _INT32, _INT64),
    "weir_program": (_INT64, _PLACE, _INT32, _PLACE, _INT64, _PLACE, _PLACE, _INT32),
    "weir_send_file": (_INT32, _INT32, _INT32, _INT64, _INT64, _INT32, _PLACE),
    "weir_rows_bytes": (_INT64, _PLACE, _INT32, _INT64, _INT32, _INT32),
    "weir_rows_write": (_INT64, _PLACE, _INT32, _INT64, _PLACE, _INT32, _PLACE, _INT32, _PLACE),
}


class Piece(ctypes.Structure):
    """``piece`` of joined.c."""

    _fields_ = [("text", _PLACE), ("nbytes", _INT64)]


class Column(ctypes.Structure):
    """``column`` of csv.c."""

    _fields_ = [
        ("starts", _PLACE),
        ("ends", _PLACE),
        ("values", _PLACE),
        ("offsets", _PLACE),
        ("validity", _PLACE),
        ("first", _INT64),
        ("nulls", _INT64),
        ("second", _INT32),
        ("kind", _INT32),
        ("returns", _INT32),
        ("unused", _INT32),
    ]


class Keys(ctypes.Structure):
    """``keys`` of hash.c."""

    _fields_ = [
        ("texts", _PLACE),
        ("offsets", _PLACE),
        ("numbers", _PLACE),
        ("validity", _PLACE),
        ("offset", _INT64),
        ("rows", _INT64),
    ]


class Node(ctypes.Structure):
    """``node`` of json.c."""

    _fields_ = [
        ("key", _PLACE),
        ("values", _PLACE),
        ("validity", _PLACE),
        ("spans", _PLACE),
        ("offsets", _PLACE),
        ("first", _INT64),
        ("nulls", _INT64),
        ("nbytes", _INT64),
        ("rows", _INT64),
        ("second", _INT32),
        ("kind", _INT32),
        ("key_bytes", _INT32),
        ("first_child", _INT32),
        ("children", _INT32),
        ("opener", _INT32),
        ("follower", _INT32),
        ("unused", _INT32),
    ]


class Written(ctypes.Structure):
    """``written`` of rows.c."""

    _fields_ = [
        ("before", _PLACE),
        ("validity", _PLACE),
        ("values", _PLACE),
        ("offsets", _PLACE),
        ("offset", _INT64),
        ("before_bytes", _INT32),
        ("kind", _INT32),
        ("quoting", _INT32),
        ("unused", _INT32),
    ]


class ProgramInstruction(ctypes.Structure):
    """``instruction`` of program.c."""

    _fields_ = [
        ("operation", _INT32),
        ("out", _INT32),
        ("left", _INT32),
        ("right", _INT32),
        ("place", _INT32),
        ("accepts", _INT32),
        ("low", _INT64),
        ("high", _INT64),
    ]


class GroupsColumn(ctypes.Structure):
    """``column`` of groups.c."""

    _fields_ = [
        ("validity", _PLACE),
        ("values", _PLACE),
        ("offsets", _PLACE),
        ("offset", _INT64),
        ("nbytes", _INT64),
        ("family", _INT32),
        ("width", _INT32),
    ]


class GroupsTotal(ctypes.Structure):
    """``total`` of groups.c."""

    _fields_ = [
        ("in_", GroupsColumn),
        ("state", _PLACE),
        ("seen", _PLACE),
        ("arena", _PLACE),
        ("arena_used", _INT64),
        ("arena_bytes", _INT64),
        ("kind", _INT32),
        ("unused", _INT32),
    ]


class GroupsTable(ctypes.Structure):
    """``table`` of groups.c."""

    _fields_ = [
        ("entries", _PLACE),
        ("leads", _PLACE),
        ("slots", _PLACE),
        ("arena", _PLACE),
        ("mask", _UINT64),
        ("seed", _UINT64),
        ("groups", _INT64),
        ("most_groups", _INT64),
        ("arena_used", _INT64),
        ("arena_bytes", _INT64),
        ("needed_bytes", _INT64),
        ("mode", _INT32),
        ("keys", _INT32),
        ("totals", _INT32),
        ("block", _INT32),
        ("wants", _INT32),
        ("unused", _INT32),
    ]


class Panes(ctypes.Structure):
    """``windows`` of panes.c."""

    _fields_ = [
        ("every", _INT64),
        ("slide", _INT64),
        ("pane", _INT64),
        ("late", _INT64),
        ("panes", _INT64),
        ("latest", _INT64),
        ("least", _INT64),
        ("has_latest", _INT32),
        ("unused", _INT32),
    ]


def _builds() -> Iterator[ctypes.CDLL]:
    """Those that this processor runs, the fastest last."""
    for name in ("libweir.so", "libweir-v3.so"):
        try:
            library = ctypes.CDLL(str(files(__package__).joinpath(name)))
        except OSError:
            return
        for call_name, (result, *arguments) in _CALLS.items():
            call = getattr(library, call_name)
            call.restype, call.argtypes = result, arguments
        yield library
        if not library.weir_has_avx2():
            return


LIBRARIES = list(_builds())
LIBRARY = LIBRARIES[-1] if LIBRARIES else None
