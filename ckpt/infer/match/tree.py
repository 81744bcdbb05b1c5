"""The modules of a state_dict as a tree, in which a chain of only children is one node.

Every node knows its leaves in the order of the tree, and the signature of its contents.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_NUMBER = re.compile(r"\d+")
_DIGITS = 18  # of a number; no index has more
_MOST_PARTS = 64  # of one key; deeper ones stay joined


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The contents of a node: how many leaves of which kind, their number, and all elements.

    Modules of equal contents have the same object.
    """

    kinds: Counter[int]
    size: int
    numel: int


@dataclass(slots=True, eq=False)
class Node:
    """A module, or a tensor.

    Attributes:
        path: Dotted, down to where it branches; may be empty for the root.
        parent: None for the root.
        low: Its first leaf, in the order of the tree.
        high: The end of its leaves, exclusive.
        children: In order of first appearance.
        signature: Its contents.
        order: Place of its first tensor, in the order of registration.
        leaf: Whether it is a tensor.
    """

    path: str
    parent: "Node | None"
    low: int
    high: int = 0
    children: list["Node"] = field(default_factory=list)
    signature: Signature = field(init=False)
    order: int = 0
    leaf: bool = False

    @property
    def size(self) -> int:
        """Number of its leaves."""
        return self.high - self.low

    def below(self) -> Iterator["Node"]:
        """All nodes under it, parents before their children."""
        stack = self.children[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def relative(self, to: "Node") -> str:
        """Its path below another node; the whole path below the root, whose name may matter too."""
        return self.path[len(to.path) + 1 :] if to.parent is not None else self.path


@dataclass(frozen=True, slots=True)
class Tree:
    """One side.

    Attributes:
        root: The node above all others.
        leaves: In the order of the tree.
        kinds: Of the leaves, in the order of the tree.
        rows: The numbers that follow a text in the keys, such as the indices of one list's layers.
    """

    root: Node
    leaves: list[Node]
    kinds: list[int]
    rows: dict[str, list[int]]

    def place(self, path: str, back: int) -> tuple[int, int, int]:
        """The `back`th number of `path` from the end: it, its rank, and the length of its row."""
        found = [*_NUMBER.finditer(path)][-back]
        value = int(found[0][:_DIGITS])
        row = self.rows[path[: found.start()]]
        return value, bisect_left(row, value), len(row)


_Trie = dict[str, "_Trie | int"]


def build_tree(
    kept: Sequence[tuple[str, int]],
    numels: Sequence[int],
    signatures: dict[frozenset[tuple[int, int]], Signature],
) -> Tree:
    """Make the tree of one side.

    Args:
        kept: Unique keys and their kinds.
        numels: The number of elements of each kind.
        signatures: Those of both sides; added to.
    """
    keys, kinds = [key for key, _ in kept], [kind for _, kind in kept]
    trie: _Trie = {}
    for number, key in enumerate(keys):
        _insert(trie, key.split(".", _MOST_PARTS), number)
    tree = Tree(Node("", None, 0), [], [], _rows(keys))
    _grow(tree, tree.root, trie, keys, kinds)
    alone: dict[int, Signature] = {}
    for node in (*reversed([*tree.root.below()]), tree.root):  # children first
        if node.leaf and (known := alone.get(tree.kinds[node.low])):
            node.signature = known  # most nodes are leaves, of few kinds
            continue
        counts = Counter((tree.kinds[node.low],)) if node.leaf else Counter[int]()
        for child in node.children:
            counts.update(child.signature.kinds)
        contents = frozenset(counts.items())
        if contents not in signatures:
            numel = sum(numels[kind] * count for kind, count in contents)
            signatures[contents] = Signature(counts, node.size, numel)
        node.signature = signatures[contents]
        if node.leaf:
            alone[tree.kinds[node.low]] = node.signature
    return tree


def _rows(keys: Sequence[str]) -> dict[str, list[int]]:
    """The numbers that follow the same text, e.g. the indices of all layers of one list."""
    found: dict[str, set[int]] = {}
    for key in keys:
        for number in _NUMBER.finditer(key):
            found.setdefault(key[: number.start()], set()).add(int(number[0][:_DIGITS]))
    return {before: sorted(values) for before, values in found.items()}


def _insert(trie: _Trie, parts: list[str], number: int) -> None:
    for part in parts[:-1]:
        inner = trie.get(part)
        if isinstance(inner, int):  # `a` and `a.b`: the tensor becomes a child without a name
            inner = trie[part] = {"": inner}
        elif inner is None:
            inner = trie[part] = {}
        trie = inner
    last = trie.get(parts[-1])
    if isinstance(last, dict):
        last[""] = number
    else:
        trie[parts[-1]] = number


def _grow(tree: Tree, node: Node, trie: _Trie, keys: Sequence[str], kinds: Sequence[int]) -> None:
    while len(trie) == 1:  # a chain: one node, named by its end
        ((part, inner),) = trie.items()
        if isinstance(inner, int):
            break
        node.path = f"{node.path}.{part}" if node.path else part
        trie = inner
    for part, inner in trie.items():
        child = Node(f"{node.path}.{part}" if node.path else part, node, len(tree.leaves))
        while isinstance(inner, dict) and len(inner) == 1:
            ((part, inner),) = inner.items()
            child.path += f".{part}"
        node.children.append(child)
        if isinstance(inner, int):
            child.path, child.leaf, child.order = keys[inner], True, inner
            child.high = child.low + 1
            tree.leaves.append(child)
            tree.kinds.append(kinds[inner])
        else:
            _grow(tree, child, inner, keys, kinds)
    node.high = len(tree.leaves)
    node.order = min((child.order for child in node.children), default=0)
