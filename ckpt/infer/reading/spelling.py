"""The dotted reading of a key, whatever separates its parts.

TensorFlow writes ``layer/kernel:0``, kohya's LoRA ``blocks_0_attn_to_q``, and the copy that
CompVis' LDM keeps of a moving average has no separators (`LitEma` in ``ldm/modules/ema.py``).
Law: the readings of one side are unique.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

_OUTPUT = re.compile(r":\d+$")  # of a TensorFlow operation
_INDEX = re.compile(r"(?<=[A-Za-z])_(\d+)_(?=[A-Za-z])")
_LAST_INDEX = re.compile(r"(?<=[A-Za-z])_(\d+)$")
_BLOCK = re.compile(r"^([a-z]+\d+)([a-z]?)_(?=[a-z])")  # of Keras: ``block2b_dwconv``
_NO_LETTER = re.compile(r"[^A-Za-z0-9]")
_JOINED = re.compile(r"[A-Za-z]\d+[A-Za-z]")
_LEAST_JOINED = 12  # letters of a name without separators


def read_keys(source: Sequence[str], target: Sequence[str]) -> tuple[list[str], list[str]]:
    """The readings of the keys of both sides."""
    sides = [[_read(key) for key in side] for side in (source, target)]
    joined = [[_is_joined(name) for name in side] for side in sides]
    if any(map(any, joined)):
        dotted = _dotted([name for side in sides for name in side])
        sides = [
            [
                _separated(name, dotted) if odd else name
                for name, odd in zip(side, odds, strict=True)
            ]
            for side, odds in zip(sides, joined, strict=True)
        ]
    ones, others = (_unique(side, keys) for side, keys in zip(sides, (source, target), strict=True))
    return ones, others


def _read(key: str) -> str:
    if "/" in key:
        key = _BLOCK.sub(_numbered, _OUTPUT.sub("", key).replace("/", "."))
    if "_" not in key:
        return key
    return ".".join(map(_read_part, key.split(".")))


def _numbered(block: re.Match[str]) -> str:
    """``block2b_`` as ``block2.1.``, and ``conv1_`` as ``conv1.``."""
    return f"{block[1]}.{ord(block[2]) - ord('a')}." if block[2] else f"{block[1]}."


def _read_part(part: str) -> str:
    """A dotted part, divided at the indices within it; the last one only if another is."""
    read, times = _INDEX.subn(r".\1.", part)
    return _LAST_INDEX.sub(r".\1", read) if times else read


def _is_joined(name: str) -> bool:
    last = name.rpartition(".")[2]
    return len(last) >= _LEAST_JOINED and _JOINED.search(last) is not None


def _dotted(names: Sequence[str]) -> dict[str, str]:
    """The names and their ends by their letters, if these are the letters of one name only."""
    found: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        for first in range(len(parts) - 1):
            end = ".".join(parts[first:])
            letters = _NO_LETTER.sub("", end)
            found[letters] = end if found.get(letters, end) == end else ""
    return found


def _separated(name: str, dotted: dict[str, str]) -> str:
    before, _, last = name.rpartition(".")
    read = dotted.get(_NO_LETTER.sub("", last)) or last
    return f"{before}.{read}" if before else read


def _unique(names: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [*_without_clashes(names, keys)] if len(set(names)) < len(names) else [*names]


def _without_clashes(names: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    """The key itself for names that are read twice, or that are keys of other tensors."""
    counts, others = Counter(names), Counter(keys)
    for name, key in zip(names, keys, strict=True):
        yield name if counts[name] == 1 and (name == key or name not in others) else key
