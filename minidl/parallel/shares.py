"""Shares: a flat array of parameters, or of their gradients, cut into parts of equal length, one for each replica."""

from __future__ import annotations

from collections.abc import Sequence

SHARE_ELEMENTS = 16  # of which a share is a multiple: a cache line of float32


def share_elements(elements: int, shares: int) -> int:
    """The elements of each of `shares` equal shares that together hold `elements`; the last ones may be empty.

    With one share, too, whole cache lines.
    """
    return -(-elements // (shares * SHARE_ELEMENTS)) * SHARE_ELEMENTS


def flat_elements(elements: int, shares: int) -> int:
    """The elements of a flat buffer for `elements` that is cut into `shares` equal shares."""
    return shares * share_elements(elements, shares)


def share_of(elements: int, share: int, shares: int) -> slice:
    """Where `share` lies in a flat buffer for `elements`."""
    length = share_elements(elements, shares)
    return slice(share * length, (share + 1) * length)


def parts(sizes: Sequence[int], share: int, shares: int) -> list[slice]:
    """Of arrays with these sizes, one after the other in a flat buffer, the elements that belong to `share`."""
    own, found, start = share_of(sum(sizes), share, shares), [], 0
    for size in sizes:
        low, high = (min(max(0, border - start), size) for border in (own.start, own.stop))
        found.append(slice(low, high))
        start += size
    return found
