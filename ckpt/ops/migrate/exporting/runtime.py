"""What exported migrations run; an export has a copy of the parts that it uses.

Not imported by ckpt. Its lines stay short: ruff formats them alike at every usual length.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
New = str | Callable[[re.Match[str]], str]
Step = Callable[[State], State]
COMPANION = (
    r"(?s)(.+)_"
    r"(?:scale|scale_inv|scale_2|global_scale|zero_point|g_idx|shape)"
)
COUNTER = "num_batches_tracked"  # torch adds it where an old state_dict has none


@dataclass(frozen=True)
class Form:
    """An earlier form of the class: its keys, with example sizes, and what leads on."""

    number: int | None
    keys: Sequence[str]
    steps: Sequence[Step]


CLASS = Form(None, (), ())  # exports have their own
FORMS: Sequence[Form] = ()
OWNER = ""


def distinct(pairs: Iterable[tuple[str, Any]]) -> State:
    """A state_dict of pairs whose keys all differ."""
    made: State = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"two tensors become {key}")
        made[key] = value
    return made


def hit(old: str, key: str, value: object) -> bool:
    """Whether a tensor's key matches a pattern."""
    return isinstance(value, Tensor) and re.search(old, key) is not None


def rename(state: State, old: str, new: New) -> State:
    """Replace a pattern wherever it matches in a key."""
    return distinct((re.sub(old, new, key), it) for key, it in state.items())


def rename_at_once(state: State, rules: Sequence[tuple[str, New]]) -> State:
    """Read each key once; no pattern sees what another has inserted."""
    return distinct((at_once(key, rules), it) for key, it in state.items())


def at_once(key: str, rules: Sequence[tuple[str, New]]) -> str:
    """One key, at each place of which the first pattern that matches is replaced."""
    made, position = "", 0
    while True:
        found: list[tuple[int, int, re.Match[str]]] = []
        for number, (old, _) in enumerate(rules):
            match = re.compile(old).search(key, position)
            if match and match[0]:
                found.append((match.start(), number, match))
        if not found:
            return made + key[position:]
        start, number, match = min(found, key=lambda it: it[:2])
        new = rules[number][1]
        text = match.expand(new) if isinstance(new, str) else new(match)
        made, position = made + key[position:start] + text, match.end()


def rename_listed(state: State, names: Mapping[str, str]) -> State:
    """Rename keys or modules that are listed, all at once."""
    return distinct((listed(key, names), it) for key, it in state.items())


def listed(key: str, names: Mapping[str, str]) -> str:
    """One key; its longest part that is listed counts.

    Scales and the like follow the quantised weight that they begin with.
    """
    owner = re.fullmatch(COMPANION, key)
    name = owner[1] if owner and key not in names and owner[1] in names else key
    while name not in names:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return key
    return names[name] + key[len(name) :]


def select(state: State, pattern: str, keep: bool) -> State:
    """Keep or drop the tensors whose keys match."""
    names = {key for key, it in state.items() if isinstance(it, Tensor)}
    gone = {key for key in names if bool(re.search(pattern, key)) != keep}
    return {key: it for key, it in state.items() if key not in gone}


def change(state: State, old: str, made: Callable[[Tensor], Tensor]) -> State:
    """Replace tensors, whose keys stay."""
    return {key: made(it) if hit(old, key, it) else it for key, it in state.items()}


def split(
    state: State,
    old: str,
    into: Sequence[New],
    dim: int,
    sizes: Sequence[int] | None,
) -> State:
    """A tensor becomes its parts along a dimension."""
    pairs: list[tuple[str, Any]] = []
    for key, it in state.items():
        if hit(old, key, it):
            size = it.shape[dim] // len(into) if sizes is None else list(sizes)
            names = [re.sub(old, new, key) for new in into]
            pairs += zip(names, it.split(size, dim), strict=True)
        else:
            pairs.append((key, it))
    return distinct(pairs)


def duplicate(state: State, old: str, into: Sequence[New]) -> State:
    """A tensor becomes several copies."""
    pairs: list[tuple[str, Any]] = []
    for key, it in state.items():
        if hit(old, key, it):
            names = [re.sub(old, new, key) for new in into]
            pairs += [(name, it.clone() if at else it) for at, name in enumerate(names)]
        else:
            pairs.append((key, it))
    return distinct(pairs)


def unstack(state: State, old: str, new: New, dim: int) -> State:
    """A tensor becomes one for each index of a dimension."""
    pairs: list[tuple[str, Any]] = []
    for key, it in state.items():
        if hit(old, key, it):
            name = re.sub(old, new, key)
            parts = enumerate(it.unbind(dim))
            pairs += [(name.replace("{i}", str(at)), part) for at, part in parts]
        else:
            pairs.append((key, it))
    return distinct(pairs)


def concat(state: State, olds: Sequence[str], new: New, dim: int) -> State:
    """Tensors are joined along a dimension, in the order of the patterns."""
    parts: dict[str, dict[int, Tensor]] = {}
    rest: list[tuple[str, Any]] = []
    for key, it in state.items():
        at = next((at for at, old in enumerate(olds) if hit(old, key, it)), None)
        if at is None:
            rest.append((key, it))
        else:
            add(parts, re.sub(olds[at], new, key), at, it)
    made = [(key, torch.cat(ordered(of, len(olds)), dim)) for key, of in parts.items()]
    return distinct(rest + made)


def stack(state: State, old: str, new: New, dim: int) -> State:
    """Tensors are joined along a new dimension, in the order of their numbers."""
    parts: dict[str, dict[int, Tensor]] = {}
    rest: list[tuple[str, Any]] = []
    for key, it in state.items():
        match = re.search(old, key) if isinstance(it, Tensor) else None
        if match is None:
            rest.append((key, it))
        else:
            add(parts, re.sub(old, new, key), int(match[1]), it)
    made = [(key, torch.stack(ordered(of, len(of)), dim)) for key, of in parts.items()]
    return distinct(rest + made)


def add(parts: dict[str, dict[int, Tensor]], name: str, at: int, part: Tensor) -> None:
    """Note a part of a tensor."""
    if at in parts.setdefault(name, {}):
        raise ValueError(f"two tensors are part {at} of {name}")
    parts[name][at] = part


def ordered(parts: dict[int, Tensor], count: int) -> list[Tensor]:
    """All parts of a tensor, in order."""
    made = [parts[at] for at in range(count)]
    if len({it.dtype for it in made}) > 1:
        raise ValueError("the parts have different dtypes")
    return made


def pattern_of(template: str) -> str:
    """The pattern of a template's keys: ``{i}`` is a number."""
    return re.sub(r"\\\{[a-z](?:>=\d+)?\\\}", r"\\d+", re.escape(template))


def matches(form: Form, state: State, number: int | None) -> bool:
    """Whether a state_dict has the keys of a form."""
    if number is not None and number != form.number:
        return False
    lines = [line.removeprefix("? ").rpartition("  ") for line in form.keys]
    ranks = [0 if sizes == "()" else len(sizes.split()) for *_, sizes in lines]
    patterns = [re.compile(pattern_of(template)) for template, *_ in lines]
    used: set[int] = set()
    for key, it in state.items():
        rank = it.ndim if isinstance(it, Tensor) else 0
        found = {at for at, it in enumerate(patterns) if it.fullmatch(key)}
        found = {at for at in found if ranks[at] == rank}
        if not found:
            return False
        used |= found
    return all(at in used or may_lack(line) for at, line in enumerate(form.keys))


def may_lack(line: str) -> bool:
    """Whether a form may lack a key."""
    return line.startswith("? ") or line.rpartition("  ")[0].endswith(COUNTER)


def fits(state: State, wanted: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a state_dict has the keys and shapes of a module."""
    found = {key: tuple(getattr(it, "shape", ())) for key, it in state.items()}
    lacks = wanted.keys() - found.keys()
    if not all(key.endswith(COUNTER) for key in lacks):
        return False
    return all(wanted.get(key) == shape for key, shape in found.items())


def ran(steps: Sequence[Step], state: State) -> State | None:
    """A state_dict after migrations; None if one of them does not go with it."""
    try:
        for step in steps:
            state = step(state)
    except (ValueError, KeyError, IndexError, RuntimeError):
        return None
    return state


def same(one: State, other: State) -> bool:
    """Whether two state_dicts have equal values."""
    if one.keys() != other.keys():
        return False
    return all(equal(it, other[key]) for key, it in one.items())


def equal(one: object, other: object) -> bool:
    """Whether two values are the same, or equal tensors."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one is other
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


def migrate(
    state: State,
    wanted: Mapping[str, tuple[int, ...]],
    number: int | None = None,
    own: int | None = None,
) -> State | None:
    """A state_dict of an earlier form as one that fits; None if nothing leads there.

    Args:
        state: The state_dict.
        wanted: The shapes of the module, by key.
        number: The `ckpt_schema` that the state_dict was saved with, if it is known.
        own: The `ckpt_schema` of the class, if it has one.

    Raises:
        ValueError: It may be of two forms, and the results would differ.
    """
    as_it_is = fits(state, wanted)
    if as_it_is and number == own:
        return state
    found = [state] if as_it_is and number is None else []
    for form in FORMS:
        made = ran(form.steps, state) if matches(form, state, number) else None
        if made is not None and fits(made, wanted):
            found.append(made)
    if not all(same(found[0], other) for other in found[1:]):
        raise ValueError("it may be of two forms, and its keys do not tell which")
    return found[0] if found else None


def number_in(metadata: Mapping[str, Any]) -> int | None:
    """The `ckpt_schema` that a state_dict's metadata gives a module."""
    number = metadata.get("ckpt_schema", metadata.get("version"))
    known = "ckpt_schema" in metadata or number != 1
    return number if isinstance(number, int) and known else None


def number_of(module: nn.Module) -> int | None:
    """The `ckpt_schema` of a module's class."""
    number = getattr(module, "ckpt_schema", None)
    if number is None:
        return number_in({"version": module._version})
    return number if isinstance(number, int) else None


def load_part(
    module: nn.Module,
    state: State,
    prefix: str,
    metadata: Mapping[str, Any],
) -> str | None:
    """Replace what a module loads by what fits it; what is wrong if that is not known."""
    values = module.state_dict(keep_vars=True)
    wanted = {key: tuple(getattr(it, "shape", ())) for key, it in values.items()}
    own_keys = [key for key in state if key.startswith(prefix)]
    mine = {key[len(prefix) :]: state[key] for key in own_keys}
    number, own = number_in(metadata), number_of(module)
    try:
        made = migrate(mine, wanted, number, own)
    except ValueError as error:
        return str(error)
    if made is None and number is not None and fits(mine, wanted):
        return f"ckpt_schema is {number}, expected {own}; no migration leads there"
    if made is not None and made is not mine:
        for key in own_keys:
            del state[key]
        state.update({prefix + key: it for key, it in made.items()})
    return None


def before_loading(
    module: nn.Module,
    state_dict: State,
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """The hook that torch calls in `load_state_dict`."""
    wrong = load_part(module, state_dict, prefix, local_metadata)
    if wrong is not None:
        error_msgs.append(wrong)


def note_number(
    module: nn.Module,
    state_dict: State,
    prefix: str,
    local_metadata: dict[str, Any],
) -> None:
    """The hook that stores the `ckpt_schema` of the class."""
    number = getattr(module, "ckpt_schema", None)
    if number is not None:
        local_metadata["ckpt_schema"] = number


def register(module: nn.Module) -> None:
    """Let a module load the state_dicts of its earlier forms; for its `__init__`."""
    hooks: Any = module
    hooks.register_load_state_dict_pre_hook(before_loading)
    hooks.register_state_dict_post_hook(note_number)


def on_load_checkpoint(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Migrate a checkpoint; for the method of this name of a LightningModule."""
    state = checkpoint["state_dict"]
    metadata = getattr(state, "_metadata", {})
    for name, part in module.named_modules():
        if type(part).__name__ == OWNER:
            prefix = f"{name}." if name else ""
            wrong = load_part(part, state, prefix, metadata.get(name, {}))
            if wrong is not None:
                raise RuntimeError(f"{name or OWNER}: {wrong}")


def example(form: Form) -> State:
    """A state_dict of a form, with two of each block."""
    made: State = {}
    for line in form.keys:
        template, _, sizes = line.removeprefix("? ").rpartition("  ")
        shape = [48 if it == "_" else int(it) for it in sizes.split() if it != "()"]
        names = [template]
        while match := re.search(r"\{[a-z](?:>=(\d+))?\}", names[0]):
            first, index = int(match[1] or 0), match[0]
            numbers = (first, first + 1)
            names = [it.replace(index, str(n)) for it in names for n in numbers]
        made.update({name: torch.zeros(shape) for name in names})
    return made


def test_every_form_arrives() -> None:
    """Each earlier form becomes the present one, with two of each block."""
    for form in FORMS:
        made = ran(form.steps, example(form))
        assert made is not None
        assert matches(CLASS, made, CLASS.number)
