"""Inputs of random access: far ones, which count what is asked of them, and near ones, which are files."""

from __future__ import annotations

import os


class Far:
    """Bytes in memory that are asked for as those of an object would be. ``asked`` are offsets and sizes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)
        self.asked: list[tuple[int, int]] = []

    def read_at(self, offset: int, nbytes: int) -> bytes:
        assert 0 <= offset < self.nbytes
        assert nbytes > 0
        self.asked.append((offset, nbytes))
        return self._data[offset : offset + nbytes]

    @property
    def asked_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.asked)


class Near:
    """The same bytes as a file without a name."""

    def __init__(self, data: bytes) -> None:
        self._fd = os.memfd_create("near")
        os.write(self._fd, data)
        self.nbytes = len(data)
        self.path = f"/proc/self/fd/{self._fd}"

    def read_at(self, offset: int, nbytes: int) -> bytes:
        return os.pread(self._fd, nbytes, offset)

    def __del__(self) -> None:
        os.close(self._fd)
