"""Lineage as a drawing: versions below each other, newest first, each joined with its parent.

A version keeps its lane down to its parent, as in `git log --graph`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice

from ckpt.ops.site import Origin, Site, lineage
from ckpt.registry.version import Version
from ckpt.show.look.words import metrics
from ckpt.show.site.links import Links

ROW = 32  # height of a line, in pixels; style.css has the same
_LANE = 18
_MOST_LANES = 12  # more are drawn above each other
_MOST_ABOVE = 12  # on the page of a version: itself and what it was made from
_MOST_MADE = 20  # likewise: what was made from it


@dataclass(frozen=True, slots=True)
class Node:
    """A version in the drawing; without a link if it has no page."""

    name: str
    x: int
    y: int
    note: str
    link: str
    aliases: Sequence[str]
    here: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawing: its size in pixels, its versions, and the lines between them."""

    width: int
    height: int
    nodes: Sequence[Node]
    edges: Sequence[str]


def family(refs: Iterable[str], origins: Mapping[str, Origin]) -> list[str]:
    """These versions and all that they were made from, newest first, children before parents."""
    wanted = {each for ref in refs for each in lineage(ref, origins)}
    return _ordered(wanted, origins)


def relatives(ref: str, origins: Mapping[str, Origin]) -> list[str]:
    """A version, the nearest versions that it was made from, and those made from it."""
    made = [each for each, origin in origins.items() if origin.parent == ref]
    return _ordered({*made[:_MOST_MADE], *islice(lineage(ref, origins), _MOST_ABOVE)}, origins)


def _ordered(refs: Set[str], origins: Mapping[str, Origin]) -> list[str]:
    parents = {ref: origins[ref].parent for ref in refs}
    waiting = Counter(parent for parent in parents.values() if parent in refs)
    newest = sorted(refs, key=lambda ref: _age(origins[ref].version), reverse=True)
    rank = {ref: at for at, ref in enumerate(newest)}
    ready = [rank[ref] for ref in newest if not waiting[ref]]
    found = []
    while ready:
        ref = newest[heappop(ready)]
        found.append(ref)
        parent = parents[ref]
        waiting[parent] -= 1
        if parent in rank and not waiting[parent]:
            heappush(ready, rank[parent])
    return found


def _age(version: Version) -> tuple[str, str, int]:
    return version.created, version.model, version.number


def graph(
    refs: Sequence[str], site: Site, links: Links, *, root: str, here: str | None = None
) -> Graph:
    """The drawing of versions, children before parents."""
    row = {ref: at for at, ref in enumerate(refs)}
    lanes: list[str | None] = []  # for which parent each lane is kept
    lane_of: dict[str, int] = {}
    for ref in refs:
        mine = [at for at, waited in enumerate(lanes) if waited == ref]
        lane = (
            mine[0] if mine else next((n for n, it in enumerate(lanes) if it is None), len(lanes))
        )
        lanes += [None] * (lane + 1 - len(lanes))
        lanes = [None if waited == ref else waited for waited in lanes]
        parent = site.origins[ref].parent
        lanes[lane] = parent if parent in row else None
        lane_of[ref] = lane
    places = {ref: (_x(lane_of[ref]), row[ref] * ROW + ROW // 2) for ref in refs}
    edges = [
        _edge(places[ref], places[parent])
        for ref in refs
        if (parent := site.origins[ref].parent) in places and parent is not None
    ]
    nodes = [_node(ref, places[ref], site, links, root, is_here=ref == here) for ref in refs]
    width = _x(max(lane_of.values(), default=0)) + _LANE // 2 + 4
    return Graph(width, len(refs) * ROW, nodes, edges)


def _x(lane: int) -> int:
    return _LANE // 2 + min(lane, _MOST_LANES) * _LANE


def _edge(child: tuple[int, int], parent: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = child, parent
    if x == to_x:
        return f"M{x} {y}V{to_y}"
    bend = to_y - ROW
    return f"M{x} {y}V{bend}C{x} {to_y - ROW // 3} {to_x} {bend + ROW // 3} {to_x} {to_y}"


def _node(
    ref: str, place: tuple[int, int], site: Site, links: Links, root: str, *, is_here: bool
) -> Node:
    origin = site.origins[ref]
    version, model = origin.version, site.index.models[origin.version.model]
    parent = origin.parent or origin.named
    if not parent:
        what = origin.kind
    elif origin.parent:
        what = f"{origin.kind}, from {parent}"
    else:
        what = f"{origin.kind}, from {parent}, which is not in this registry"
    note = " · ".join(filter(None, [what, metrics(version.metrics), version.created[:10]]))
    link = "" if origin.removed or is_here else root + links.version(ref)
    aliases = [] if origin.removed else model.aliases_of(version)
    return Node(ref, *place, note, link, aliases, is_here)
