"""Rename: a checkpoint with other keys, and other tensors where rules make some.

Of a file a new file, of a version the next one. The plan is whole, and checked against the
definition if one is named, before anything is written. Where names alone change no tensor is
decoded: a file's tensors are copied as they are, a version's are not even read.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.errors import AmbiguousStateError, UsageError
from ckpt.formats import ALL
from ckpt.infer.fitting import Fitting
from ckpt.io.journal import overwriting
from ckpt.opened import (
    Named,
    OpenedFile,
    OpenedState,
    OpenedVersion,
    open_ref,
    open_state,
)
from ckpt.ops.register import model_name, register
from ckpt.ops.rename.plan_fit import checked, expect_fit
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rename.to_file import target_of, write_plan
from ckpt.ops.rename.to_version import next_version, plan_record
from ckpt.ops.rename.undo import undo_file, undo_version
from ckpt.refs import DefinitionRef, FileRef, expect_name, parse_file_ref, parse_ref
from ckpt.registry.registry import Added, Registry
from ckpt.rules.at_once import SWAP, parse_swap
from ckpt.rules.key_map import key_map
from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.rules.substitution import parse_rule
from ckpt.writing.checkpoint import Written

if TYPE_CHECKING:
    from ckpt.infer.find_rules import FoundRules
    from ckpt.ops.rename.proof import Proof

Rules = str | Mapping[str, str] | Sequence[str | Rule] | RuleFile


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did, or would do.

    Attributes:
        source: The name of what was renamed.
        plan: What becomes of every tensor.
        fitting: The fit with the definition of `check`; it fits, where it is given.
        written: The file that was written, if one was.
        added: The version that was added, if one was.
        left_out: What that version does not hold of the one before, a few words each.
        saved: The rule file that was written, if one was.
        found: The mapping that was inferred, if one was asked for.
        proof: That the old and the new model give the same, if it was asked for.
    """

    source: str
    plan: Plan
    fitting: Fitting | None = None
    written: Written | None = None
    added: Added | None = None
    left_out: tuple[str, ...] = ()
    saved: Path | None = None
    found: "FoundRules | None" = None
    proof: "Proof | None" = None


def rename(
    source: Named,
    rules: Rules = (),
    *,
    registry: Registry | None = None,
    check: str | None = None,
    arguments: Mapping[str, object] | None = None,
    to: Named | None = None,
    accept_likely: bool = False,
    prove_from: str | None = None,
    prove_input: Sequence[int] | None = None,
    out: Path | str | None = None,
    replace_out: bool = False,
    in_place: bool = False,
    undo: bool = False,
    save_rules: Path | str | None = None,
    register_result: bool = False,
    name: str | None = None,
    dry_run: bool = False,
) -> Renamed:
    """Give the keys of `source` other names, by rules.

    Args:
        source: A file, or a version.
        rules: ``conv->embed`` and the like, key maps and operations, applied first to last;
            or a dict of old key to new.
        registry: Where versions are looked up and added.
        check: A definition that the result must fit strictly.
        arguments: What that is called with.
        to: A definition, file or version that the result must fit strictly, and to which the
            rules are found; `rules` go before them.
        accept_likely: Take the best guess where nothing decides.
        prove_from: The definition that `source` fits: it and the new one, of `to` or `check`, are
            run, and must give the same.
        prove_input: The shape of what they are run on; None works it out.
        out: The file to write; of a file, by default, ``old.renamed.pt`` beside it; of a
            version only if it is given, and then no version is added.
        replace_out: Whether a file that stands there is replaced.
        in_place: Replace the file itself, atomically.
        undo: Give the old keys back: of a version those of its own rename, of a file those
            of `rules`, a rule file that `save_rules` wrote.
        save_rules: A rule file to write, which can be applied again, and undone.
        register_result: Register the file that is written as the next version of a model.
        name: That model; None takes the version's, or the file's name.
        dry_run: Stop after the plan and the check.

    Raises:
        PlanError: The rules do not make a good plan for these keys.
        FitError: The result would not fit `check`.
        UsageError: There is nothing to do, or `out` stands already.
        ConflictError: Another process renames the same file in place.
    """
    registry = registry or Registry()
    out = None if out is None else Path(out)
    listed = _listed(rules)
    _expect_possible(listed, undo=undo, save_rules=save_rules, name=name, to=to)
    with _alone(source, in_place=in_place), _opened(source, registry) as opened:
        as_version = isinstance(opened, OpenedVersion) and out is None
        if as_version and (in_place or replace_out or register_result):
            raise UsageError(
                f"{opened.name} is a version, and stays as it is; its rename is the next version",
                hint="-o  writes a file instead",
            )
        found = None
        if to is not None:
            found = _found(opened, to, listed, registry, arguments, accept_likely=accept_likely)
            listed = list(found.rules)
        plan = _undone(opened, rules) if undo else _planned(opened, listed)
        fits = checked(opened.entries, plan, check, arguments)
        if found is not None:
            fits = expect_fit(opened.entries, plan, found.target, found.wanted)
        proof = None
        if prove_from is not None:
            new = to if to is not None else check
            proof = _proved(source, plan, prove_from, new, registry, arguments, prove_input)
        result = Renamed(opened.name, plan, fits, found=found, proof=proof)
        target = None if as_version else target_of(opened, plan, out, in_place=in_place)
        if dry_run:
            if plan.is_rename:
                opened.checkpoint.renamed({**plan.new_keys, **plan.aliases})  # what it refuses
            return result
        record = _record(opened, plan, listed, undo=undo)
        if isinstance(opened, OpenedVersion) and target is None:
            result = _added(opened, result, record, registry, undo=undo)
        elif target is not None:
            written = write_plan(opened, plan, target, replace_out=replace_out, in_place=in_place)
            result = replace(result, written=written)
        if save_rules is not None:
            result = replace(result, saved=_saved(Path(save_rules), listed, opened))
    if not register_result:
        return result
    added = _registered(result, {"plan": record}, registry, name or _model(opened))
    return replace(result, added=added)


def parse(text: str, *, literal: bool = False, word: bool = False) -> Rule:
    """Read one rule as it is typed: ``OLD->NEW``, ``OLD=NEW``, or ``A<->B`` for a swap.

    Raises:
        RuleError: It cannot be read.
    """
    if SWAP in text:
        return parse_swap(text, word=word)
    return parse_rule(text, literal=literal, word=word)


@contextmanager
def _opened(source: Named, registry: Registry) -> Iterator[OpenedState]:
    """Like `open_state`; of a file with several state_dicts of the same keys all are meant."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_state(source, registry))
        except AmbiguousStateError as ambiguous:
            try:
                opened = stack.enter_context(open_state(f"{fspath(source)}::{ALL}", registry))
            except AmbiguousStateError:
                raise ambiguous from None
        yield opened


@contextmanager
def _alone(source: Named, *, in_place: bool) -> Iterator[None]:
    """Nobody else renames the file in place meanwhile; what is no regular file is refused later."""
    text = fspath(source)
    ref = parse_ref(text) if isinstance(source, str) else parse_file_ref(text)
    path = ref.path if in_place and isinstance(ref, FileRef) else None
    if path is None or not path.is_file() or path.is_symlink():
        yield
    else:
        with overwriting(path):
            yield


def _found(
    opened: OpenedState,
    to: Named,
    first: Sequence[Rule],
    registry: Registry,
    arguments: Mapping[str, object] | None,
    *,
    accept_likely: bool,
) -> "FoundRules":
    """The rules that lead to another state_dict, if nothing about them is a guess."""
    from ckpt.infer.find_rules import expect_settled, rules_between

    with open_ref(to, registry, arguments) as target:
        found = rules_between(opened, target, first)
    if not accept_likely:
        expect_settled(found)
    if not found.rules:
        raise UsageError(f"{found.source} fits {found.target} as it is; nothing is to be renamed")
    return found


def _proved(
    source: Named,
    plan: Plan,
    old: str,
    new: Named | None,
    registry: Registry,
    arguments: Mapping[str, object] | None,
    shape: Sequence[int] | None,
) -> "Proof":
    from ckpt.definitions import find_definition
    from ckpt.ops.load import load
    from ckpt.ops.rename.proof import prove

    if new is None or not isinstance(parse_ref(fspath(new)), DefinitionRef):
        raise UsageError("a proof runs two definitions", hint="--from OLD_DEF --to NEW_DEF --prove")
    definitions = [find_definition(each, arguments) for each in (old, fspath(new))]
    return prove(plan, load(source, registry=registry), *definitions, shape=shape)


def _expect_possible(
    rules: Sequence[Rule],
    *,
    undo: bool,
    save_rules: Path | str | None,
    name: str | None,
    to: Named | None,
) -> None:
    """What can be refused before anything is opened, so that nothing is half done."""
    if to is not None and undo:
        raise UsageError("--undo and --to cannot go together")
    if not rules and not undo and to is None:
        raise UsageError(
            "no rule is given",
            hint="--rule 'OLD->NEW', --rules FILE, --map FILE or --unwrap; --to DEF  finds them",
        )
    if name is not None:
        expect_name(name)
    if save_rules is None:
        return
    if undo:
        raise UsageError("--undo has no rules to save")
    path = Path(save_rules)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if path.exists():
        raise UsageError(f"{path} stands already", hint="name another with --save-rules")


def _saved(path: Path, rules: Sequence[Rule], opened: OpenedState) -> Path:
    aliases, name = opened.checkpoint.aliases, f"rename of {opened.name}"
    write_rule_file(path, rules, opened.entries, aliases=aliases, name=name)
    return path


def _record(
    opened: OpenedState, plan: Plan, rules: Sequence[Rule], *, undo: bool
) -> dict[str, Any]:
    record = plan_record(plan, rules, opened.entries)
    if plan.is_rename:
        return record
    return {**record, "tied": list(opened.checkpoint.aliases), **({"undone": True} if undo else {})}


def _planned(opened: OpenedState, rules: Sequence[Rule]) -> Plan:
    return plan_tensors(opened.entries, rules, aliases=opened.checkpoint.aliases)


def _listed(rules: Rules) -> list[Rule]:
    match rules:
        case str():
            return [parse(rules)]
        case RuleFile():
            return list(rules.rules)
        case Mapping():
            return [key_map(rules, name="the map")]
    return [parse(rule) if isinstance(rule, str) else rule for rule in rules]


def _undone(opened: OpenedState, rules: Rules) -> Plan:
    if isinstance(rules, RuleFile):
        return undo_file(opened.name, opened.entries, rules)
    if rules or isinstance(opened, OpenedFile):
        raise UsageError(
            "--undo needs the rule file of the rename",
            hint="ckpt rename NEW --undo --rules FILE, with the FILE of --save-rules",
        )
    return undo_version(opened)


def _model(opened: OpenedState) -> str:
    return model_name(opened.path) if isinstance(opened, OpenedFile) else opened.version.model


def _registered(result: Renamed, record: dict[str, Any], registry: Registry, model: str) -> Added:
    assert result.written is not None
    return register(
        result.written.ref,
        registry=registry,
        name=model,
        made_by=f"rename of {Path(result.source).name}",
        record=record,
    )


def _added(
    opened: OpenedVersion,
    result: Renamed,
    record: dict[str, Any],
    registry: Registry,
    *,
    undo: bool,
) -> Renamed:
    """The next version; of a plan that makes tensors by way of a file."""
    plan, fits = result.plan, result.fitting
    if undo:
        from ckpt.ops.rename.undo import known_parent

        parent = known_parent(opened, plan, registry)
        if parent is not None:
            return replace(result, added=Added(parent, new=False))
    if plan.is_rename:
        definition = fits.definition if fits else None
        return replace(
            result, added=next_version(opened, plan, record, registry, definition=definition)
        )
    from tempfile import TemporaryDirectory

    version = opened.version
    suffix = ".safetensors" if "safetensors" in opened.manifest.format else ".pt"
    with TemporaryDirectory(prefix=".ckpt-", dir=registry.folder) as folder:
        out = Path(folder) / f"{Path(opened.manifest.file_name).stem}{suffix}"
        written = write_plan(opened, plan, out, replace_out=False)
        added = register(
            written.ref,
            registry=registry,
            name=version.model,
            metrics=version.metrics,
            made_by=f"rename of {version.label}",
            record={
                "parent": {"version": version.ref, "manifest": version.manifest},
                "plan": record,
                **({"fits": fits.definition} if fits else {}),
            },
        )
        return replace(result, added=added, left_out=written.left_out)
