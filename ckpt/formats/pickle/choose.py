"""Which state_dict of a pickle a ref names."""

import re
from collections.abc import Mapping

from ckpt.errors import AmbiguousStateError, FormatError, RefusedGlobalError, excerpt
from ckpt.formats.pickle.describe import WEIGHTS_HINT, brief, is_tensor
from ckpt.formats.pickle.find import ALL, COPIES, Chosen, Contents, dotted, is_plain_tensor
from ckpt.formats.pickle.keys import copied_keys, shown_keys, shown_path
from ckpt.formats.pickle.nodes import Call, DictNode, Opaque

_COUNTER = "n_averaged"  # what AveragedModel counts
_LISTED = 5  # state_dicts in a hint
_ALONE_HINT = "give it a key: torch.save({'weight': tensor}, FILE)"
# The keys of one layer of torch: ``weight``, ``weight_ih_l0``, ``in_proj_bias``.
_OF_ONE_LAYER = re.compile(r"(^|_)(weight|bias)(_|$)")


def choose(contents: Contents, inside: str | None, *, name: str) -> Chosen:
    """Choose a state_dict.

    Args:
        contents: All that the file holds.
        inside: Its dotted path, or that of a value with tensors further down, such as
            an optimizer's state; None for the only state_dict. The root does not count if a
            mapping in it holds more tensors than it does itself: a training checkpoint with a
            loose tensor beside its model. `ALL` for the first of several with the same keys.
        name: Of the file, for messages.

    Raises:
        FormatError: There is none.
        AmbiguousStateError: There are several to choose from.
    """
    named: dict[str, tuple[tuple[str, ...], DictNode]] = {}
    twice = set[str]()
    for path, mapping, _ in contents.state_dicts:
        twice |= {dotted(path)} & set(named)
        named.setdefault(dotted(path), (path, mapping))
    likely = _likely(contents)
    paths = {dotted(path): named[dotted(path)] for path in likely}
    only: str | None
    if inside is not None and inside != ALL:
        inside = inside.removesuffix(COPIES)
        if inside in twice:
            raise _doubled(name, inside)
        if inside in named:
            return _direct(*named[inside], name)
        return _below(contents, inside, list(paths), name)
    if not paths:
        return _flattened(contents, (), name)
    if "" in paths:
        return _direct(*paths[""], name)
    only, *others = paths
    if others:
        only = _original(paths) if inside == ALL else None
    if only is None:
        raise AmbiguousStateError(
            f"{name}: holds {len(paths)} state_dicts",
            hint=_hint(name, list(paths)),
            names=tuple(paths),
        )
    if only in twice:
        raise _doubled(name, only)
    return _direct(*paths[only], name)


def expect_independent(contents: Contents, chosen: Chosen, *, name: str) -> None:
    """Make sure that no value of the state_dict is an opaque object around a tensor.

    Raises:
        RefusedGlobalError: A key would be lost, perhaps one of a tensor.
    """
    if chosen.mapping is None or not contents.hidden:
        return
    depth = len(chosen.path)
    around = {path[depth] for path, _ in contents.hidden if path[:depth] == chosen.path}
    for key, value in chosen.mapping.items:
        if isinstance(value, Opaque) and key in around:
            raise _needed(name, f"{brief(key)} needs it", value)


def _needed(name: str, why: str, opaque: Opaque) -> RefusedGlobalError:
    return RefusedGlobalError(
        f"{name}: refused global {excerpt(opaque.name, 100)} at offset {opaque.offset:,}: {why}",
        hint="if you trust the file and can import this class, load it with torch, and save "
        "module.state_dict() alone",
    )


def _doubled(name: str, path: str) -> FormatError:
    return FormatError(f"{name}: two of its state_dicts have the name {path!r}")


def _likely(contents: Contents) -> list[tuple[str, ...]]:
    """Paths of the candidates; only that of the root, if it is one."""
    found = _without_scores(contents)
    if any(path and _has_modules(mapping) for path, mapping, _ in found):
        found = [it for it in found if not it[0] or _is_of_module(it[1])]
    counts = {path: count for path, _, count in found}
    own = counts.pop((), None)
    if own is not None and all(own >= count for count in counts.values()):
        return [()]
    return list(counts)


def _without_scores(contents: Contents) -> list[tuple[tuple[str, ...], DictNode, int]]:
    """The state_dicts that hold more than scalars and settings, or all if none does.

    Trainers keep scores as tensors: the best of a checkpoint callback, a loss scale; and a few
    tensors among settings, such as the weights of classes.
    """
    left = [found for found in contents.state_dicts if not _is_scores(found[1])]
    weights = [found for found in left if 2 * found[2] >= len(found[1].items)]
    return weights or left or contents.state_dicts


def _has_modules(mapping: DictNode) -> bool:
    """Whether some key names a module and its tensor."""
    return any(isinstance(key, str) and "." in key for key, _ in mapping.items)


def _is_of_module(mapping: DictNode) -> bool:
    """Whether it looks like the state_dict of a module, not like settings or statistics."""
    own = (key for key, value in mapping.items if isinstance(key, str) and is_tensor(value))
    return _has_modules(mapping) or any(map(_OF_ONE_LAYER.search, own))


def _is_scores(mapping: DictNode) -> bool:
    tensors = [value for _, value in mapping.items if is_tensor(value)]
    return bool(tensors) and all(map(_is_scalar, tensors))


def _is_scalar(tensor: Call) -> bool:
    size = tensor.arguments[2] if is_plain_tensor(tensor) and len(tensor.arguments) > 2 else None
    return size == ()


def strangers_of(contents: Contents, chosen: Chosen) -> list[str]:
    """The paths of the state_dicts that are not copies of the chosen one."""
    keys = {key for key, _ in chosen.tensors}
    return [
        dotted(path)
        for path, mapping, _ in _without_scores(contents)
        if path != chosen.path
        and not copied_keys((key for key, _ in mapping.items if isinstance(key, str)), keys)
    ]


def _original(paths: Mapping[str, tuple[tuple[str, ...], DictNode]]) -> str | None:
    """The path of the first state_dict of which all others are copies; None if there is none."""
    texts = {
        path: {key for key, _ in mapping.items if isinstance(key, str)}
        for path, (_, mapping) in paths.items()
    }
    for path, keys in texts.items():
        if all(other - {_COUNTER} <= copied_keys(other, keys).keys() for other in texts.values()):
            return path
    return None


def _direct(path: tuple[str, ...], mapping: DictNode, name: str) -> Chosen:
    """A mapping's own tensors, by its keys."""
    items = [item for item in mapping.items if isinstance(item[0], str) or is_tensor(item[1])]
    try:
        keys = list(shown_keys(key for key, _ in items))
    except ValueError as error:
        raise FormatError(f"{name}: {dotted(path) or 'its root'}: {error}") from error
    tensors = [
        (key, value) for key, (_, value) in zip(keys, items, strict=True) if is_tensor(value)
    ]
    others = [key for key, (_, value) in zip(keys, items, strict=True) if not is_tensor(value)]
    return Chosen(path, mapping, tensors, tuple(others))


def _below(contents: Contents, inside: str, paths: list[str], name: str) -> Chosen:
    """The tensors below a dotted path."""
    for path, _ in contents.tensors:
        for length in range(1, len(path)):
            top = path[:length]
            if all(isinstance(part, str) for part in top) and dotted(top) == inside:
                return _flattened(contents, tuple(map(str, top)), name)
    tops = dict.fromkeys(str(path[0]) for path, _ in contents.tensors if len(path) > 1)
    known = {path.partition(".")[0] for path in paths}
    others = [top for top in tops if top not in known]
    raise FormatError(
        f"{name}: holds no state_dict {inside!r}", hint=_hint(name, [*paths, *others])
    )


def _flattened(contents: Contents, top: tuple[str, ...], name: str) -> Chosen:
    """All tensors below `top`, by their paths from there."""
    below = [
        (path[len(top) :], tensor) for path, tensor in contents.tensors if path[: len(top)] == top
    ]
    if not below and contents.opaque:
        why = "all tensors need it" if contents.hidden else "the file holds no tensors"
        raise _needed(name, why, contents.opaque[0][1])
    if not below:
        what = contents.kind or "a torch file"
        hint = WEIGHTS_HINT if contents.kind else None
        raise FormatError(f"{name}: {what}, which holds no tensors", hint=hint)
    if any(not path for path, _ in below):
        hint = WEIGHTS_HINT if contents.kind else _ALONE_HINT
        what = contents.kind or "a single tensor"
        raise FormatError(f"{name}: {what}, not a state_dict", hint=hint)
    for with_types in (False, True):
        try:
            keys = [shown_path(path, with_types=with_types) for path, _ in below]
        except ValueError as error:
            raise FormatError(f"{name}: {error} on the path to a tensor") from error
        if len(set(keys)) == len(keys):
            return Chosen(top, None, list(zip(keys, (tensor for _, tensor in below), strict=True)))
    raise FormatError(f"{name}: two of its tensors have the same path as text")


def _hint(name: str, paths: list[str]) -> str | None:
    if not paths:
        return None
    from shlex import quote

    shown = [quote(f"{name}::{path}") if path else quote(name) for path in paths[:_LISTED]]
    more = "" if len(paths) <= _LISTED else f"  or {len(paths) - _LISTED:,} more"
    return f"name one: {'  or  '.join(shown)}{more}"
