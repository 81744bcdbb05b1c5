"""Where a pickle's tensors and state_dicts are.

Walks the nodes without recursion, bounded in depth and steps: they may share and contain
each other as the file likes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ckpt.errors import FormatError
from ckpt.formats.pickle_describe import brief, is_tensor
from ckpt.formats.pickle_globals import TENSOR_V2, TENSOR_V3
from ckpt.formats.pickle_nodes import Call, Mapping, Sequence

DEPTH_LIMIT = 100
_LISTED = 5  # state_dicts in a hint

Path = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a pickle holds.

    Attributes:
        tensors: Every tensor with its path from the root.
        state_dicts: Mappings that hold tensors themselves, reached by text keys alone.
    """

    tensors: list[tuple[Path, Call]]
    state_dicts: list[tuple[tuple[str, ...], Mapping]]


def find(root: object, *, name: str, step_limit: int) -> Found:
    """Find the tensors and the state_dicts.

    Args:
        root: What the pickle describes.
        name: What to call it in messages.
        step_limit: More steps than this are refused; a pickle that shares little takes one
            for each of its opcodes at most.

    Raises:
        FormatError: It is nested too deep, in a circle, or shared beyond measure.
    """
    found = Found([], [])
    if isinstance(root, Mapping) and not root.items:
        found.state_dicts.append(((), root))  # a module without parameters
    path: list[object] = []
    # One iterator a level: what waits to be visited takes no memory, however often it is shared.
    levels: list[Iterator[tuple[object, object]]] = [iter(((None, root),))]
    for _ in range(step_limit):
        child = next(levels[-1], None)
        if child is None:
            levels.pop()
            if not levels:
                return found
            path.pop()
            continue
        key, node = child
        here = (*path[1:], key) if path else ()
        _note(found, here, node, name)
        if isinstance(node, Mapping | Sequence | Call) and not _is_plain_tensor(node):
            if len(levels) > DEPTH_LIMIT:
                raise FormatError(f"{name}: nested deeper than {DEPTH_LIMIT}, or in a circle")
            path.append(key)
            levels.append(_children(node))
    raise FormatError(f"{name}: its parts are shared so often that they never end")


def _is_plain_tensor(node: object) -> bool:
    """A tensor without attributes, in which there is nothing to find."""
    return isinstance(node, Call) and node.function in (TENSOR_V2, TENSOR_V3)


def _note(found: Found, path: Path, node: object, name: str) -> None:
    if is_tensor(node):
        assert isinstance(node, Call)
        found.tensors.append((path, node))
    elif isinstance(node, Mapping):
        _expect_unique(node, path, name)
        texts = tuple(part for part in path if isinstance(part, str))
        if len(texts) == len(path) and any(is_tensor(value) for _, value in node.items):
            found.state_dicts.append((texts, node))


def _expect_unique(mapping: Mapping, path: Path, name: str) -> None:
    """No dict that was pickled has a key twice; readers differ in which of them they take."""
    seen: set[str] = set()
    for key, _ in mapping.items:
        if isinstance(key, str):
            if key in seen:
                raise FormatError(f"{name}: {dotted((*path, key))}: stands twice")
            seen.add(key)


def _children(node: Mapping | Sequence | Call) -> Iterator[tuple[object, object]]:
    """What a node contains, each with what leads to it; a key may contain something as well."""
    if isinstance(node, Mapping):
        for key, value in node.items:
            yield key, value
            if isinstance(key, Mapping | Sequence | Call):
                yield None, key
    elif isinstance(node, Sequence):
        yield from enumerate(node.items)
    else:
        yield from enumerate(node.arguments)
    if isinstance(node, Mapping | Call) and node.state is not None:
        yield None, node.state


def choose(found: Found, inside: str | None, *, name: str) -> tuple[tuple[str, ...], Mapping]:
    """The state_dict that is meant.

    Args:
        found: What the file holds.
        inside: Its dotted path; None for the root, or the only one that there is.
        name: What to call the file in messages.

    Raises:
        FormatError: There is none, or several and no telling which.
    """
    paths: dict[str, tuple[tuple[str, ...], Mapping]] = {}
    for path, mapping in found.state_dicts:
        if dotted(path) in paths:
            raise FormatError(f"{name}: two of its state_dicts are both called {dotted(path)!r}")
        paths[dotted(path)] = (path, mapping)
    if inside is not None:
        if inside in paths:
            return paths[inside]
        raise FormatError(f"{name}: holds no state_dict {inside!r}", hint=_hint(name, list(paths)))
    if "" in paths:
        return paths[""]
    if not paths:
        raise FormatError(f"{name}: a torch file in which no mapping holds tensors")
    if len(paths) > 1:
        raise FormatError(f"{name}: holds {len(paths)} state_dicts", hint=_hint(name, list(paths)))
    return next(iter(paths.values()))


def _hint(name: str, paths: list[str]) -> str | None:
    if not paths:
        return None
    shown = [f"{name}::{path}" if path else name for path in paths[:_LISTED]]
    more = "" if len(paths) <= _LISTED else f"  or {len(paths) - _LISTED:,} more"
    return f"name one: {'  or  '.join(shown)}{more}"


def dotted(path: Path) -> str:
    """A path for people: ``optimizer.state.0.exp_avg``."""
    return ".".join(str(part) if isinstance(part, str) else brief(part) for part in path)
