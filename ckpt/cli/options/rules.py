"""The options of `ckpt rename` that are rules."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from ckpt.cli.options import PATH
from ckpt.cli.options.shell_trap import expect_whole_rules
from ckpt.ops.rename.rule_order import RuleOptions

_NAMES = RuleOptions.__dataclass_fields__.keys() - {"typed", "answers"}
_TYPED = "ckpt.cli.options.rules"  # where the context has the options in the order typed


def _note(context: click.Context, option: click.Parameter, values: Any) -> Any:
    """Note an option that was given; click calls this in the order typed."""
    if values:
        context.meta.setdefault(_TYPED, []).append(option.name)
    return values


_PREFIX: dict[str, Any] = {"multiple": True, "metavar": "PREFIX"}
_REGEX: dict[str, Any] = {"multiple": True, "metavar": "REGEX", "callback": _note}
_FILE: dict[str, Any] = {"type": PATH, "metavar": "FILE"}

_OPTIONS = (
    click.option(
        "--rule",
        "rules",
        multiple=True,
        metavar="'OLD->NEW'",
        help=r"Replace every match of the regular expression OLD in a key by NEW; \1 or {1} is a "
        r"group, {1+1} its number plus one, {(\1-1)//3} a formula. OLD=NEW means the same and "
        "needs no quotes; A<->B swaps two names. Repeatable: rules apply in order, each to the "
        "result of the one before.",
    ),
    click.option("-F", "literal", is_flag=True, help="Treat OLD and NEW as literal text."),
    click.option(
        "--word", is_flag=True, help="Match whole dotted parts only, with their trailing number."
    ),
    click.option(
        "--rules",
        "file",
        **_FILE,
        help="Apply a rule file (TOML): rules in order, and operations on tensors.",
    ),
    click.option(
        "--map",
        "maps",
        multiple=True,
        **_FILE,
        help="Rename by a JSON, TOML or CSV file of old key or module to new, all at once.",
    ),
    click.option(
        "--unwrap",
        is_flag=True,
        help="Remove the prefixes that DDP, torch.compile and trainers add.",
    ),
    click.option("--strip", **_PREFIX, callback=_note, help="Remove a prefix from the keys."),
    click.option("--add", **_PREFIX, help="Add a prefix to every key."),
    click.option("--drop", **_REGEX, help="Drop the tensors whose keys match."),
    click.option("--keep", **_REGEX, help="Drop the tensors whose keys do not match."),
)


def rule_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command with a `source` the options that are rules; it gets these as `rules`."""

    @wraps(function)
    def run(*given: Any, **options: Any) -> Any:
        typed = click.get_current_context().meta.get(_TYPED, ())
        rules = RuleOptions(typed=typed, **{name: options.pop(name) for name in _NAMES})
        expect_whole_rules(options["source"], rules.rules)
        return function(*given, rules=rules, **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run
