"""The dicts that calls make: of their arguments, without calling anything."""

from collections.abc import Callable

from ckpt.formats.pickle.globals import DICTS, FACTORIES
from ckpt.formats.pickle.nodes import DictNode, Global


def _ordered_dict(arguments: tuple[object, ...]) -> DictNode:
    """Empty, or made of a list of pairs, as before Python 2.7."""
    if not arguments:
        return DictNode([], ordered=True)
    (items,) = arguments
    pairs = []
    for pair in items if isinstance(items, list | tuple) else (items,):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError("an OrderedDict of something other than pairs")
        pairs.append((pair[0], pair[1]))
    return DictNode(pairs, ordered=True)


def _counter(arguments: tuple[object, ...]) -> DictNode:
    """Empty, or a copy of a dict."""
    if not arguments:
        return DictNode([])
    (counts,) = arguments
    if not isinstance(counts, DictNode):
        raise TypeError("a Counter of something other than a dict")
    return DictNode([*counts.items])


def _other_dict(arguments: tuple[object, ...]) -> DictNode:
    """An empty dict of another class; a defaultdict takes its factory."""
    for item in arguments:
        if item is not None and not (isinstance(item, Global) and item.name in FACTORIES):
            raise TypeError("a dict of another class with arguments")
    return DictNode([])


MAKERS: dict[str, Callable[[tuple[object, ...]], DictNode]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    **dict.fromkeys(DICTS, _other_dict),
}
