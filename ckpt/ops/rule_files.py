"""Rules that stand in files: maps of old key to new key, in JSON or TOML."""

import json
import tomllib
from pathlib import Path

from ckpt.errors import RefError, RuleError
from ckpt.rules.mapping import KeyMap, key_map


def read_map(path: Path) -> KeyMap:
    """Read a map of old key to new key from a JSON or TOML file.

    Raises:
        RefError: There is no such file.
        RuleError: It holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            document: object = tomllib.loads(text)
        else:
            document = json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError as error:
        raise RefError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:  # JSON, TOML and UTF-8 errors are ValueErrors
        raise RuleError(
            f"{path}: {error}", hint="a map is JSON, or TOML in a .toml file"
        ) from error
    return key_map(document, name=str(path))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is listed twice")
    return found
