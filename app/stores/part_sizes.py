"""How large the parts of a multipart upload are, so that the parts a store allows always suffice."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import Refusal
from app.core.units import as_size
from app.stores.objects import PartLimits

_STEPS = 10
"""Sizes double this many times less one over all parts: a tenth of the parts each. From 8 MiB on, 10,000 parts then
reach 8 TiB, which is more than S3 takes."""
_MANY_PARTS = 64
"""Where there are more, it is calls that cost (2 ms of CPU each), and parts are up to twice as large."""
_UNSURE = 8
"""A result of a length that is only guessed may be this many times longer without a failure."""


@dataclass(frozen=True, slots=True)
class PartSizes:
    """The sizes of parts by number: ``first_bytes``, doubled after every tenth of ``max_parts``, ``most_bytes`` at the
    most."""

    first_bytes: int
    most_bytes: int
    max_parts: int
    max_object_bytes: int

    def size(self, number: int) -> int:
        """The bytes of part ``number`` (from 1), unless it is the last."""
        step = (number - 1) * _STEPS // self.max_parts
        return min(self.most_bytes, self.first_bytes << step)

    @property
    def capacity_bytes(self) -> int:
        """The largest object that can be written."""
        per_step = [0] * _STEPS
        for step in range(_STEPS):
            first = -(-step * self.max_parts // _STEPS)
            per_step[step] = -(-(step + 1) * self.max_parts // _STEPS) - first
        total = sum(count * min(self.most_bytes, self.first_bytes << step) for step, count in enumerate(per_step))
        return min(self.max_object_bytes, total)


def part_sizes(
    limits: PartLimits, *, wanted_bytes: int, room_bytes: int, length_bytes: int | None, exact: bool
) -> PartSizes:
    """Sizes for an object of ``length_bytes`` (None if nobody knows; a guess unless ``exact``).

    ``wanted_bytes`` is a good part, ``room_bytes`` the largest one that memory has room for. The sizes are hardly larger
    than the length demands, because memory for them is paid for beforehand. Raises ``object_too_large`` if it is known that
    the object will not fit.
    """
    low = min(limits.max_bytes, max(limits.min_bytes, wanted_bytes))
    high = min(limits.max_bytes, max(low, room_bytes))
    if exact and length_bytes is not None:
        low = max(low, min(2 * low, high, length_bytes // _MANY_PARTS))
    if length_bytes is None:
        wished = limits.max_object_bytes
    else:
        wished = length_bytes if exact else min(limits.max_object_bytes, length_bytes * _UNSURE)
    if limits.equal:
        size = min(high, max(low, -(-wished // limits.max_parts)))
        sizes = PartSizes(size, size, limits.max_parts, limits.max_object_bytes)
    else:
        most = low
        while most < high and _sizes(low, most, limits).capacity_bytes < wished:
            most *= 2
        sizes = _sizes(low, min(most, high), limits)
    if exact and length_bytes is not None and length_bytes > sizes.capacity_bytes:
        raise Refusal(
            "object_too_large",
            f"an object of {as_size(length_bytes)} needs parts of {as_size(-(-length_bytes // limits.max_parts))};"
            f" with parts of {as_size(high)}, which is what memory allows, {as_size(sizes.capacity_bytes)} is the most",
        )
    return sizes


def _sizes(first: int, most: int, limits: PartLimits) -> PartSizes:
    return PartSizes(first, most, limits.max_parts, limits.max_object_bytes)
