"""Makes the cases: a case is a pure function of its seed and its number."""

from collections.abc import Sequence
from random import Random

from tests.formats.fuzz import legacy, pickles, zips
from tests.formats.fuzz.draw import Case, Draw
from tests.formats.fuzz.pickles import Assembler
from tests.formats.fuzz.storages import KINDS

CONTAINERS = ("pickle", "pickle", "zip", "legacy")
TRICKS = {
    "pickle": pickles.TRICKS,
    "zip": (*zips.TRICKS, "alias of a container", "storage by the memo", "views"),
    "legacy": (*pickles.TRICKS, *3 * legacy.TRICKS),
}
MOST = 10  # tricks of a case

# Tricks that show only together with another one.
NEEDS = {
    "state that sets data": ("parameter with state", "from type", "state by build"),
    "state that sets others": ("parameter with state", "from type", "state by build"),
    "state in two parts": ("parameter with state", "from type", "state by build"),
    "list that grows": ("sizes in a list",),
    "sizes by the memo": ("sizes in a list", "sizes in a Size"),
    "usual form altered": ("usual form",),
    "v3 of another dtype": ("v3",),
    "alias of a container": ("lists", "nested dicts"),
    "container changed after use": ("lists", "nested dicts", "ordered dict of pairs"),
    "legacy views that collide": ("legacy views",),
    "legacy views beyond": ("legacy views",),
    "bit that is false": ("metadata",),
    "inner tensors": ("from type of a subclass",),
    "attributes in pairs": ("dict with a state",),
    "attributes changed after use": ("parameter with state", "from type", "Namespace"),
}

# Kinds of difference that are known and not mended yet, each with its reason: no case uses them.
KNOWN: dict[str, str] = {}


def case(seed: int, number: int, *, forced: Sequence[str] = ()) -> Case:
    """One case.

    Args:
        seed: Of the run.
        number: Of the case.
        forced: Tricks that it may use in any case, even those of `KNOWN`.
    """
    rng = Random(f"{seed}:{number}")
    container = rng.choice(CONTAINERS)
    names = [name for name in TRICKS[container] if name not in KNOWN]
    chosen = [*rng.sample(names, rng.randrange(1, MOST)), *forced]
    needed = {rng.choice(NEEDS[name]) for name in chosen if name in NEEDS}
    draw = Draw(rng, frozenset(chosen) | (needed - KNOWN.keys()))
    assembler = Assembler(draw, legacy=container == "legacy")
    pickle = assembler.pickle()
    if container == "legacy":
        data = legacy.file(draw, pickle, stored(draw, assembler))
    else:
        records = {key: data for key, (_, data) in stored(draw, assembler).items()}
        data = zips.archive(draw, pickle, records)
    return Case(container, frozenset(draw.used), data)


def stored(draw: Draw, assembler: Assembler) -> dict[str, tuple[int, bytes]]:
    """The elements and the bytes of each storage."""
    found = {}
    for key, (kind, numel) in assembler.storages.items():
        data = draw.rng.randbytes(numel * KINDS.get(kind, 1))
        if kind == "BoolStorage":
            data = bytes(byte & 1 for byte in data)
        found[key] = (numel, data)
    return found
