"""Rules that stand in files: maps of old key to new key, in JSON or TOML."""

import tomllib
from pathlib import Path

from ckpt import strict_json
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
            document = strict_json.parse(text)
    except FileNotFoundError as error:
        raise RefError(f"{path}: no such file") from error
    except ValueError as error:  # of JSON, TOML or UTF-8
        raise RuleError(
            f"{path}: {error}", hint="a map is JSON, or TOML in a .toml file"
        ) from error
    return key_map(document, name=str(path))
