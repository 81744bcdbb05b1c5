"""Side files that name what a rename renames: a config that lists modules stays as it is."""

import re
from collections.abc import Iterable, Iterator

from ckpt.rules.plan import Plan
from ckpt.side_files import Readable

_MOST_BYTES = 1 << 20  # a vocabulary is larger, and names no module
_TEXT = (".json", ".yaml", ".yml", ".toml", ".py")
_QUOTED = re.compile(r"""["']([\w.-]{1,512})["']|^\s*-\s+([\w.-]{1,512})\s*$""", re.MULTILINE)


def mentions(files: Iterable[Readable], plan: Plan) -> tuple[str, ...]:
    """``config.json (q_proj)`` for each file that names keys or modules which the plan renames."""
    gone = _names(change.old for change in plan.renamed) - _names(plan.new_keys.values())
    return tuple(_mentions(files, gone)) if gone else ()


def _mentions(files: Iterable[Readable], gone: set[str]) -> Iterator[str]:
    for file in files:
        if file.nbytes <= _MOST_BYTES and file.name.lower().endswith(_TEXT):
            text = b"".join(file.chunks()).decode("utf-8", "replace")
            found = {word for pair in _QUOTED.findall(text) for word in pair} & gone
            if found:
                yield f"{file.name} ({', '.join(sorted(found)[:3])})"


def _names(keys: Iterable[str]) -> set[str]:
    """All keys, modules and parts of their names that are not numbers."""
    found = set()
    for key in keys:
        parts = key.split(".")
        found |= {".".join(parts[: end + 1]) for end in range(len(parts))}
        found |= {part for part in parts if not part.isdecimal()}
    return found
