"""Old names that a rename leaves in side files, and in the non-tensor part of the file itself."""

import re
from collections.abc import Iterable, Iterator, Mapping

from ckpt.formats.sharded import INDEX_LIMIT
from ckpt.opened.states import OpenedState
from ckpt.refs import without_index
from ckpt.rules.plan import KeyChange, Plan
from ckpt.side_files import Readable

_MOST_BYTES = 1 << 20  # a vocabulary is larger, and names no module
_FEW = 100  # words
_TEXT = (".json", ".yaml", ".yml", ".toml", ".py")
_QUOTED = re.compile(r"""["']([\w.-]{1,512})["']|^\s*-\s+([\w.-]{1,512})\s*$""", re.MULTILINE)


def mentions(opened: OpenedState, files: Iterable[Readable], plan: Plan) -> tuple[str, ...]:
    """``config.json (q_proj)`` for each place that names keys or modules which the plan renames."""
    changes, names = plan.renamed, {**plan.new_keys, **plan.aliases}
    left = opened.checkpoint.untouched(names) if changes else {}
    places = {place: {*_words(value)} for place, value in left.items()}
    places |= {file.name: {*_quoted(text)} for file in files if (text := _text(file))}
    every = set[str]().union(*places.values())
    if len(every) < _FEW:  # cheaper than the parts of all keys, of which there may be 100,000
        old_keys = "\n".join(change.old for change in changes)
        if not any(word in old_keys for word in every):
            return ()
    gone = _names(changes) - set(_parts(plan.new_keys.values()))
    found = {place: sorted(words & gone) for place, words in places.items()}
    return tuple(f"{place} ({', '.join(words[:3])})" for place, words in found.items() if words)


def _text(file: Readable) -> str:
    most = _MOST_BYTES if without_index(file.name) is None else INDEX_LIMIT
    if file.nbytes > most or not file.name.lower().endswith(_TEXT):
        return ""
    return b"".join(file.chunks()).decode("utf-8", "replace")


def _quoted(text: str) -> Iterator[str]:
    return (word for pair in _QUOTED.findall(text) for word in pair)


def _words(value: object) -> Iterator[str]:
    """All texts in a value, keys too, and what they quote."""
    if isinstance(value, str):
        yield value
        yield from _quoted(value)
    elif isinstance(value, Mapping):
        yield from map(str, value)
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _words(inner)


def _names(changes: Iterable[KeyChange]) -> set[str]:
    """The old keys, and the modules and parts of names that are not numbers.

    Of a change that only adds or removes a prefix no single word counts: ``model`` may be a
    setting.
    """
    found = set[str]()
    for change in changes:
        names = _parts([change.old])
        prefix = f".{change.old}".endswith(f".{change.new}")
        found |= {name for name in names if "." in name} if prefix else {*names}
    return found


def _parts(keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        parts = key.split(".")
        yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
        yield from (part for part in parts if not part.isdecimal())
