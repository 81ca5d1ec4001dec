"""Record batches as they come out of files, of any size and encoding, become batches that are pages.

A page's bytes must be what it costs, downstream too. So columns are made plain: what a dictionary or a view repeats
takes as little room in the file as one likes (a value of a megabyte, a million times, is 5 MB), and all of it as soon
as a stage touches it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from app.core.errors import Refusal
from app.core.page import Page
from app.core.units import as_size


class Cutter:
    """Makes pages of about ``page_bytes``, of at most the double, from batches of one schema.

    ``schema`` is that of the pages: dictionaries are replaced by their values, views by plain strings and binaries.
    ``has_dictionaries``: the batches do.
    Raises ``unsupported_type`` for a column that cannot be made plain, ``ValueError`` for a name that is not UTF-8.
    """

    def __init__(self, schema: pa.Schema, *, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._without_views = _each_field(schema, dictionaries=False)
        self.schema = _each_field(schema, dictionaries=True)
        self._has_views = not self._without_views.equals(schema)
        self.has_dictionaries = not self.schema.equals(self._without_views)

    def cut(self, batch: pa.RecordBatch, *, room_bytes: int) -> Iterator[pa.RecordBatch]:
        """The rows of ``batch`` in order; at least one batch.

        Everything that Arrow can check is checked first, because a lying offset would crash the process later:
        raises ``ValueError``. ``page_too_large`` if views stand for more than ``room_bytes``, or one row is larger
        than two pages.
        """
        batch.validate(full=True)
        if self._has_views:
            seen_bytes = sum(_viewed_bytes(column) for column in batch.columns)
            if seen_bytes > room_bytes:
                raise Refusal(
                    "page_too_large",
                    f"the string views of one record batch stand for {as_size(seen_bytes)},"
                    f" {as_size(seen_bytes - room_bytes)} more than there is room for: write smaller record batches",
                )
            columns = [_without_null_views(column) for column in batch.columns]
            batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema).cast(self._without_views)
        yield from self._cut(batch)

    def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        rows, most_bytes = batch.num_rows, 2 * self._page_bytes
        nbytes = sum(_plain_bytes(column) for column in batch.columns) if self.has_dictionaries else batch.nbytes
        # Rows without bytes (columns of nulls, no columns) are counted as a byte each.
        if max(nbytes, rows) <= most_bytes:
            yield batch.cast(self.schema) if self.has_dictionaries else batch
            return
        if rows == 1:
            raise Refusal(
                "page_too_large",
                f"one row takes {as_size(nbytes)}, {as_size(nbytes - most_bytes)} more than two pages"
                f" ({as_size(most_bytes)}): raise PAGE_BYTES",
            )
        step = max(1, rows * self._page_bytes // max(nbytes, rows))
        for start in range(0, rows, step):
            yield from self._cut(batch.slice(start, step))


def occupied_bytes(batch: pa.RecordBatch, enough_bytes: int) -> int:
    """What ``batch`` occupies, at least a byte: all of its buffers, or where these are more than ``enough_bytes``, as those
    of a slice may be, its own part of them. To find that takes thirty times as long, and gives up the GIL."""
    nbytes = batch.get_total_buffer_size()
    return max(1, int(nbytes if nbytes <= enough_bytes else batch.nbytes))


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_pylist([], schema=schema)


def table_page(batch: pa.RecordBatch, *, first: bool) -> Page:
    """``batch`` as a page."""
    return Page(batch, max(1, batch.nbytes), rows=batch.num_rows, first=first)


def _each_field(schema: pa.Schema, *, dictionaries: bool) -> pa.Schema:
    fields = []
    for field in schema:
        try:
            fields.append(_plain_field(field, dictionaries))
        except NotImplementedError as error:
            raise Refusal(
                "unsupported_type",
                f"column {field.name!r} has the type {field.type}, and {error}: cast it before sending",
                column=field.name,
            ) from None
    return pa.schema(fields, schema.metadata)


def _plain_field(field: pa.Field, dictionaries: bool) -> pa.Field:
    name = field.name  # is decoded here, so that a broken one is found now
    plain = _plain_type(field.type, dictionaries)
    # Metadata of what is replaced may tell a reader (Polars) that it is still a dictionary.
    return field if plain == field.type else pa.field(name, plain, field.nullable)


def _plain_type(type_: pa.DataType, dictionaries: bool) -> pa.DataType:
    """``type_`` without views, and without dictionaries if these are to go as well."""
    if pt.is_run_end_encoded(type_) or isinstance(type_, (pa.ListViewType, pa.LargeListViewType)):
        raise NotImplementedError("what it repeats cannot be bounded")
    if type_ == pa.string_view():
        return pa.string()
    if type_ == pa.binary_view():
        return pa.binary()
    if pt.is_dictionary(type_):
        values = _plain_type(type_.value_type, dictionaries)
        if pt.is_nested(values):
            raise NotImplementedError("a dictionary of nested values cannot be undone")
        return values if dictionaries else pa.dictionary(type_.index_type, values, type_.ordered)
    if pt.is_nested(type_) and not pt.is_map(type_):
        old = [type_.field(i) for i in range(type_.num_fields)]
        new = [_plain_field(field, dictionaries) for field in old]
        if new == old:
            return type_
        if pt.is_list(type_):
            return pa.list_(*new)
        if pt.is_large_list(type_):
            return pa.large_list(*new)
        if pt.is_fixed_size_list(type_):
            return pa.list_(*new, type_.list_size)
        if pt.is_struct(type_):
            return pa.struct(new)
        raise NotImplementedError("what it is made of cannot be undone")
    if pt.is_map(type_):
        for field in (type_.key_field, type_.item_field):
            if _plain_field(field, dictionaries=True) != field:
                raise NotImplementedError("a map of dictionaries or views cannot be undone")
        return type_
    return type_


def _without_null_views(array: pa.Array) -> pa.Array:
    """``array`` with nothing in the views of nulls: what is there means nothing and is not validated, and the cast to a
    plain type reads what it points to."""
    type_ = array.type
    if _is_view(type_):
        if not array.null_count:
            return array
        _, views, *data = array.buffers()
        words = pa.Array.from_buffers(pa.binary(16), len(array), [None, views], offset=array.offset)
        is_valid = array.is_valid()
        words = pc.if_else(is_valid, words, pa.scalar(bytes(16), pa.binary(16)))
        return pa.Array.from_buffers(type_, len(array), [is_valid.buffers()[1], words.buffers()[1], *data])
    if pt.is_dictionary(type_):
        dictionary = _without_null_views(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, dictionary, ordered=type_.ordered)
    if pt.is_struct(type_):
        fields = [_without_null_views(array.field(i)) for i in range(type_.num_fields)]  # from the array's offset on
        is_null = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(fields, fields=list(type_), mask=is_null)
    if pt.is_fixed_size_list(type_):
        own, children = array.buffers()[:1], [array.values]
    elif pt.is_list(type_) or pt.is_large_list(type_):
        own, children = array.buffers()[:2], [array.values]
    else:
        return array
    children = [_without_null_views(child) for child in children]
    return pa.Array.from_buffers(type_, len(array), own, array.null_count, array.offset, children)


def _is_view(type_: pa.DataType) -> bool:
    return bool(type_ in (pa.string_view(), pa.binary_view()))


def _viewed_bytes(array: pa.Array) -> int:
    """The bytes of all strings that views stand for, and those of the views where they are made anew."""
    type_ = array.type
    if _is_view(type_):
        # A view is 16 bytes, and begins with its length as an int32. Those of nulls mean nothing.
        words = pa.Array.from_buffers(pa.int32(), 4 * len(array), [None, array.buffers()[1]], offset=4 * array.offset)
        lengths = pc.list_element(pa.FixedSizeListArray.from_arrays(words, 4), 0)
        made_bytes = 16 * len(array) if array.null_count else 0
        return made_bytes + int(pc.sum(pc.if_else(array.is_valid(), lengths, 0)).as_py() or 0)
    if pt.is_dictionary(type_):
        return _viewed_bytes(array.dictionary)
    return sum(_viewed_bytes(child) for child in _children(array))


def _plain_bytes(array: pa.Array) -> int:
    """The bytes of ``array`` once its dictionaries are undone."""
    type_ = array.type
    if pt.is_dictionary(type_):
        values = array.dictionary
        try:
            return (len(array) * (int(values.type.bit_width) + 1) + 7) // 8
        except ValueError:  # no fixed width
            lengths = int(pc.sum(pc.binary_length(values).take(array.indices)).as_py() or 0)
            return lengths + 8 * len(array) + len(array) // 8
    children = _children(array)
    if not children:
        return int(array.nbytes)
    return 8 * len(array) + len(array) // 8 + sum(_plain_bytes(child) for child in children)


def _children(array: pa.Array) -> list[pa.Array]:
    """What a list or a struct is made of, for its rows alone."""
    type_ = array.type
    if pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_):
        return [array.flatten()]
    return array.flatten() if pt.is_struct(type_) else []
