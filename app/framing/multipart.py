"""The file out of a multipart form (RFC 7578), sans-IO."""

from __future__ import annotations

from email.message import Message

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import Refusal

_MOST_HEAD_BYTES = 64 * 1024
"""What may come before the file: small fields and headers."""


class FilePart:
    """The first part that is called ``file`` or has a file name; other parts are left out.

    ``content_type`` and ``filename`` are known once ``head_seen``. Raises ``corrupt_input`` for broken framing, and
    ``bad_argument`` when there is no boundary, or no file within the first 64 KiB of the form.
    """

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise Refusal("bad_argument", "multipart/form-data needs a boundary in its Content-Type")
        self.filename: str | None = None
        self.content_type: str | None = None
        self.head_seen = False
        self.complete = False
        self._in_file = False
        self._whole = False
        self._seen_bytes = 0
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._name,
                "on_header_value": self._value,
                "on_header_end": self._header,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._form_end,
            },
        )

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the file in the next ``data`` of the body."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise Refusal("corrupt_input", f"the multipart form is broken: {error}", byte=self._seen_bytes) from error
        self._seen_bytes += len(data)
        if not self.head_seen and self._seen_bytes > _MOST_HEAD_BYTES:
            raise self._no_file()
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """The body ended: raise ``truncated_input`` unless the form did too, ``bad_argument`` if it had no file."""
        if not self._whole:
            raise Refusal("truncated_input", "the multipart form ends before its closing boundary")
        if not self.complete:
            raise self._no_file()

    def _no_file(self) -> Refusal:
        return Refusal("bad_argument", "the form has no file: name the field 'file', as in curl -F file=@big.csv")

    def _begin(self) -> None:
        self._headers.clear()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("utf-8", "replace")
        self._header_name = self._header_value = b""

    def _headers_end(self) -> None:
        disposition = Message()
        disposition["content-disposition"] = self._headers.get("content-disposition", "")
        name, filename = disposition.get_param("name", "", "content-disposition"), disposition.get_filename()
        self._in_file = not self.head_seen and (name == "file" or filename is not None)
        if self._in_file:
            self.filename = filename
            self.content_type = self._headers.get("content-type")
            self.head_seen = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])

    def _end(self) -> None:
        self.complete = self.complete or self._in_file
        self._in_file = False

    def _form_end(self) -> None:
        self._whole = True
