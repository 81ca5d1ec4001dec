"""What the operator sets for every flow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """``page_bytes``: the largest page on any edge. Too small, and hops to threads (80-100 us each) are all there is;
    too large, and pages leave the processor's cache. ``high_water_bytes``: what one edge may hold; too small and
    neighbours wait for each other, too large and memory is spent on waiting pages. ``lanes``: pages of one parallel
    segment in work; one more than there are threads keeps these busy while the head of the order is awaited.
    ``source_page_bytes``: the source's pages, where the first stage cuts or joins them to pages of the flow."""

    page_bytes: int
    high_water_bytes: int
    lanes: int
    source_page_bytes: int | None = None
