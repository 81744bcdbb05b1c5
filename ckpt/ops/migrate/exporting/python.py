"""Migrations as a module of Python that needs torch alone: for torch and for Lightning."""

import ast
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckpt.migrate.lines import written
from ckpt.migrate.migration import Migration
from ckpt.migrate.schema import FoldedSchema
from ckpt.ops.migrate.exporting.forms import EarlierForm
from ckpt.ops.migrate.exporting.literals import (
    ExportError,
    exploded,
    pairs_of,
    pattern_of,
    quoted,
    replacement,
    sentence,
)
from ckpt.rules.at_once import AtOnce
from ckpt.rules.choice import Choice
from ckpt.rules.key_map import KeyMap
from ckpt.rules.operations import Operation
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip
from ckpt.rules.substitution import RenameRule, parse_rule

_RUNTIME = Path(__file__).with_name("runtime.py")
_DOORS = {"torch": "register", "lightning": "on_load_checkpoint"}
_USES = {
    "torch": "    class {name}(nn.Module):\n        def __init__(self) -> None:\n"
    "            ...\n            register(self)",
    "lightning": "    def on_load_checkpoint(self, checkpoint):\n"
    "        migrations.on_load_checkpoint(self, checkpoint)",
}
_OWN = ("CLASS", "FORMS", "OWNER")  # of the runtime, that each export replaces


def python_source(
    forms: Sequence[EarlierForm], present: FoldedSchema, name: str, target: str
) -> str:
    """The text of the module.

    Args:
        forms: The earlier forms of the class.
        present: Its schema.
        name: Its name.
        target: ``torch`` or ``lightning``.

    Raises:
        ExportError: A rule has no such form; the message names it and its migration.
    """
    steps = list({step.name: step for form in forms for step in form.steps}.values())
    names = _names(steps)
    bodies = [_step(step, function) for step, function in zip(steps, names, strict=True)]
    functions = {step.name: function for step, function in zip(steps, names, strict=True)}
    listed = [
        _form(form.schema, [functions[it.name] for it in form.steps], "    ") for form in forms
    ]
    own = [
        f"CLASS = {_form(present, (), '')}",
        exploded("FORMS: Sequence[Form] = [", listed, "", "]"),
    ]
    if target == "lightning":
        own.append(f"OWNER = {quoted(name)}")
    parts = _runtime({_DOORS[target], "test_every_form_arrives"}, bodies)
    head = f'"""{sentence(f"Loads earlier checkpoints of {name}")}\n\n{_USES[target]}\n\n'.format(
        name=name
    )
    head += 'Written by `ckpt migrate export`; `pytest FILE` tests it.\n"""\n'
    imports, constants, code = parts
    return "\n".join([head, imports, "", constants, "", "", *_spaced([*code, *bodies, *own])])


def _spaced(parts: Iterable[str]) -> list[str]:
    return ["\n\n\n".join(parts) + "\n"]


def _names(steps: Sequence[Migration]) -> list[str]:
    """A name of a function for each migration."""
    names: list[str] = []
    for step in steps:
        word = "by_" + re.sub("[^a-z0-9]+", "_", step.name.lower()).strip("_")
        taken = word in names or keyword.iskeyword(word)
        names.append(f"{word}_{len(names)}" if taken else word)
    return names


def _form(schema: FoldedSchema, steps: Sequence[str], indent: str) -> str:
    below = f"{indent}    "
    keys = exploded("[", map(quoted, written(schema.keys)), below, "]")
    arguments = [str(schema.number), keys, exploded("[", steps, below, "]")]
    return exploded("Form(", arguments, indent)


def _step(migration: Migration, name: str) -> str:
    lines = [
        f"def {name}(state: State) -> State:",
        f'    """{sentence(migration.message or name)}"""',
    ]
    for rule in migration.rules:
        try:
            function, arguments = _call(rule)
        except ExportError as error:
            raise ExportError(f"{migration.name}: {error}", hint=error.hint) from error
        lines.append("    state = " + exploded(f"{function}(", ["state", *arguments], "    "))
    return "\n".join([*lines, "    return state"])


def _call(rule: Rule) -> tuple[str, list[str]]:
    """The function of the runtime that does what a rule does, and its arguments as source."""
    match rule:
        case RenameRule():
            return "rename", [quoted(pattern_of(rule)), replacement(rule)]
        case AtOnce():
            pairs = [exploded("(", pair, " " * 12) for pair in pairs_of(rule)]
            return "rename_at_once", [exploded("[", pairs, " " * 8, "]")]
        case KeyMap():
            pairs = [f"{quoted(old)}: {quoted(new)}" for old, new in rule.pairs.items()]
            return "rename_listed", [exploded("{", pairs, " " * 8, "}")]
        case Strip():
            return "rename", [quoted("^" + re.escape(rule.prefix)), '""']
        case Add():
            return "rename", ['"^"', quoted(rule.prefix.replace("\\", "\\\\"))]
        case Choice():
            finds = parse_rule(f"{rule.pattern}->x")
            return "select", [quoted(pattern_of(finds)), str(rule.keeps)]
        case Operation():
            verb = next(iter(rule.spec))
            if verb in _OPERATIONS:
                return _OPERATIONS[verb](rule.spec)
            raise ExportError(f"{rule.text} has no form without ckpt", hint=_hint())
    raise ExportError(f"{rule.text} has no form without ckpt", hint=_hint())


def _hint() -> str:
    return "ckpt migrate run  converts the files themselves"


def _old(spec: Mapping[str, Any], verb: str) -> str:
    return quoted(pattern_of(parse_rule(f"{spec[verb]}->x")))


def _new(old: str, new: str) -> str:
    return replacement(parse_rule(f"{old}->{new}"))


def _split(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
    into = [_new(spec["split"], new) for new in spec["into"]]
    sizes = spec.get("sizes")
    listed = "None" if sizes is None else exploded("[", map(str, sizes), " " * 8, "]")
    return "split", [
        _old(spec, "split"), exploded("[", into, " " * 8, "]"), str(spec.get("dim", 0)), listed,
    ]  # fmt: skip


def _duplicate(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
    into = [_new(spec["duplicate"], new) for new in spec["into"]]
    return "duplicate", [_old(spec, "duplicate"), exploded("[", into, " " * 8, "]")]


def _concat(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
    rules = [parse_rule(f"{old}->{spec['into']}") for old in spec["concat"]]
    if len({replacement(it) for it in rules}) > 1:
        raise ExportError(f"concat '{rules[0].old}': its groups differ between the parts")
    olds = exploded("[", [quoted(pattern_of(it)) for it in rules], " " * 8, "]")
    return "concat", [olds, replacement(rules[0]), str(spec.get("dim", 0))]


def _stack(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
    new = _new(spec["stack"], spec["into"])
    return "stack", [_old(spec, "stack"), new, str(spec.get("dim", 0))]


def _unstack(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
    mark = "\x00"
    rule = parse_rule(f"{spec['unstack']}->{spec['into'].replace('{i}', mark)}")
    new = replacement(rule)
    index = "{{i}}" if new.startswith("lambda") else "{i}"
    return "unstack", [
        _old(spec, "unstack"), new.replace("\\x00", index), str(spec.get("dim", 0)),
    ]  # fmt: skip


def _changed(verb: str, method: str, numbers: Callable[[Mapping[str, Any]], str]) -> Any:
    def call(spec: Mapping[str, Any]) -> tuple[str, list[str]]:
        return "change", [_old(spec, verb), f"lambda it: it.{method}({numbers(spec)})"]

    return call


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


_OPERATIONS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, list[str]]]] = {
    "split": _split,
    "concat": _concat,
    "stack": _stack,
    "unstack": _unstack,
    "duplicate": _duplicate,
    "transpose": _changed("transpose", "transpose", lambda it: _joined(it.get("dims", (0, 1)))),
    "permute": _changed("permute", "permute", lambda it: _joined(it["dims"])),
    "reshape": _changed("reshape", "reshape", lambda it: _joined(it["shape"])),
    "squeeze": _changed("squeeze", "squeeze", lambda it: str(it.get("dim", 0))),
    "unsqueeze": _changed("unsqueeze", "unsqueeze", lambda it: str(it.get("dim", 0))),
    "cast": _changed("cast", "to", lambda it: f"torch.{it['dtype']}"),
}


def _runtime(doors: set[str], bodies: Sequence[str]) -> tuple[str, str, list[str]]:
    """Imports, constants and functions of the runtime, as far as they are used."""
    text = _RUNTIME.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = {name: node for node in tree.body if (name := _defined(node))}
    used, waiting = set[str](), {*doors, *_words("\n".join(bodies)), "Form"}
    while new := (waiting & parts.keys()) - used - set(_OWN):
        used |= new
        waiting = {it for name in new for it in _words(_text(text, parts[name]))}
    kept = [node for name, node in parts.items() if name in used]
    lines = [
        _text(text, node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    constants = [_text(text, it) for it in kept if isinstance(it, ast.Assign)]
    code = [_text(text, it) for it in kept if not isinstance(it, ast.Assign)]
    return "\n".join(_with_gap(lines)), "\n".join(constants), code


def _with_gap(imports: Sequence[str]) -> list[str]:
    """Imports with an empty line before those of torch."""
    first = next(at for at, line in enumerate(imports) if "torch" in line)
    return [*imports[:first], "", *imports[first:]]


def _defined(node: ast.stmt) -> str | None:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _text(text: str, node: ast.stmt) -> str:
    """The source of a statement, with its decorators and the comment behind it."""
    first = min([node.lineno, *(it.lineno for it in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
