"""Files of rules: maps of old key to new key, and rule files with rules in order."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckpt.dtypes import DTYPES
from ckpt.errors import CkptError, RuleError
from ckpt.io.documents import strict_json
from ckpt.io.documents.toml import text_of
from ckpt.io.files import write_whole
from ckpt.io.small_file import parse_toml, read_small
from ckpt.ops.rename.training.optimizers import MovedOptimizer, optimizers_document, read_optimizers
from ckpt.rules.document import read_rules, rules_document
from ckpt.rules.key_map import KeyMap, key_map
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

_FIELDS = {"name", "description", "rules", "source", "tied", "optimizers", "numbers"}
_NO_NUMBER = "none"  # TOML has no null
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # not allowed in a comment
_HEADS = (("old", "new"), ("from", "to"), ("source", "target"))  # of a CSV file's two columns


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule file.

    Attributes:
        name: The name that its author gave it, or none.
        rules: The rules, in order.
        source: The tensors to which the rules were applied, if a rename saved the file.
        aliases: The names of tied tensors stored under another key, likewise.
        optimizers: The optimizers whose parameters got another order, likewise.
        numbers: What the metadata of the root module said before, where the rename changed it.
    """

    name: str
    rules: Sequence[Rule]
    source: Sequence[TensorEntry] = ()
    aliases: Sequence[str] = ()
    optimizers: Sequence[MovedOptimizer] = ()
    numbers: Mapping[str, int | None] = field(default_factory=dict)


def read_map(path: Path) -> KeyMap:
    """Read a map of old key to new key from a JSON, TOML or CSV file."""
    if path.suffix.lower() == ".csv":
        return key_map(_csv_pairs(path), name=str(path))
    return key_map(_parsed(path, toml=path.suffix.lower() == ".toml"), name=str(path))


def read_rule_file(path: Path) -> RuleFile:
    """Read a rule file, which is TOML, or JSON in a .json file."""
    document = _parsed(path, toml=path.suffix.lower() != ".json")
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        raise RuleError(f"{path}: not a rule file", hint="[[rules]]  begins every rule")
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise RuleError(f"{path}: unknown field {unknown[0]!r}")
    name = document.get("name", "")
    if not isinstance(name, str):
        raise RuleError(f"{path}: name is not a string")
    source = read_tensors(document.get("source", []), name=str(path))
    tied = document.get("tied", [])
    if not isinstance(tied, list) or not all(isinstance(name, str) for name in tied):
        raise RuleError(f"{path}: tied is not a list of names")
    try:
        optimizers = read_optimizers(document.get("optimizers", {}))
    except ValueError as error:
        raise RuleError(f"{path}: optimizers: {error}") from error
    rules = read_rules(document["rules"], name=str(path))
    numbers = _read_numbers(document.get("numbers", {}), name=str(path))
    return RuleFile(name, rules, source, tied, optimizers, numbers)


def _read_numbers(document: object, *, name: str) -> dict[str, int | None]:
    if not isinstance(document, dict) or not all(
        type(number) is int or number == _NO_NUMBER for number in document.values()
    ):
        raise RuleError(f"{name}: numbers is not a table of numbers")
    return {key: None if it == _NO_NUMBER else it for key, it in document.items()}


def write_rule_file(
    path: Path, saved: RuleFile, *, replace: bool = False, remarks: Sequence[str] = ()
) -> None:
    """Write a rule file; with its `source` it can be undone.

    Args:
        path: The file.
        saved: What it holds.
        replace: Replace an existing file.
        remarks: Comments before all else, a line each.
    """
    document: dict[str, Any] = {"name": saved.name, "rules": rules_document(saved.rules)}
    document["source"] = tensors_document(saved.source)
    if saved.aliases:
        document["tied"] = list(saved.aliases)
    if saved.optimizers:
        document["optimizers"] = optimizers_document(saved.optimizers)
    if saved.numbers:
        document["numbers"] = {
            name: _NO_NUMBER if number is None else number for name, number in saved.numbers.items()
        }
    comments = "".join(f"# {_CONTROL.sub('?', line)}\n" for line in remarks)
    with write_whole(path, replace=replace) as out:
        out.write((comments + text_of(document)).encode("utf-8"))


def write_open_rules(
    path: Path, name: str, rules: Sequence[Rule], questions: Sequence[tuple[str, Sequence[Rule]]]
) -> None:
    """Write a rule file to fill in.

    Args:
        path: The new file.
        name: Its name.
        rules: What is known.
        questions: What is not, in words; and the rules of the best guess, as comments.
    """
    lines = text_of({"name": name, "rules": rules_document(rules) or [{}]}).splitlines()
    known = lines[1:-1] if rules else lines[1:2]
    asked: list[str] = []
    for words, guess in questions:
        asked.append(f"    # open: {_CONTROL.sub('?', words)}")
        guesses = text_of({"rules": rules_document(guess)}).splitlines()[1:-1] if guess else []
        asked += [f"    # {line.strip()}" for line in guesses]
    with write_whole(path) as out:
        out.write("\n".join([lines[0], *known, *asked, "]", ""]).encode("utf-8"))


def tensors_document(entries: Sequence[TensorEntry]) -> list[list[Any]]:
    """The key, dtype and shape of every tensor."""
    return [[entry.key, entry.dtype, list(entry.shape)] for entry in entries]


def read_tensors(document: object, *, name: str) -> list[TensorEntry]:
    """Read what `tensors_document` made."""
    found = []
    for row in document if isinstance(document, list) else [None]:
        match row:
            case [str() as key, str() as dtype, list() as shape] if dtype in DTYPES:
                if all(type(size) is int and 0 <= size < 2**63 for size in shape):
                    found.append(TensorEntry(key, dtype, tuple(shape)))
                    continue
        raise RuleError(f"{name}: source is not a list of key, dtype and shape")
    return found


def _parsed(path: Path, *, toml: bool) -> object:
    try:
        text = _text(path)
        return parse_toml(text) if toml else strict_json.parse(text)
    except CkptError:
        raise
    except ValueError as error:  # of JSON, TOML or UTF-8
        raise RuleError(
            f"{path}: {error}", hint="a map or list of rules is JSON, or TOML in a .toml file"
        ) from error


def _csv_pairs(path: Path) -> Mapping[str, str]:
    """The two columns of a CSV file, without its heading, if it has one."""
    pairs: dict[str, str] = {}
    try:
        rows = [row for row in csv.reader(_text(path).splitlines()) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: {error}") from error
    if rows and tuple(cell.strip().lower() for cell in rows[0]) in _HEADS:
        del rows[0]
    for row in rows:
        if len(row) != 2:
            raise RuleError(
                f"{path}: {row!r:.80} has {len(row)} columns, expected two: old and new"
            )
        if row[0] in pairs:
            raise RuleError(f"{path}: {row[0]!r} occurs twice")
        pairs[row[0]] = row[1]
    return pairs


def _text(path: Path) -> str:
    return read_small(path).decode("utf-8-sig")
