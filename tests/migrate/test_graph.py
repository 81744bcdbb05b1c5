"""Ways through the graph where names do not tell: numbers, and branches that were merged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ckpt.migrate.chain import begin, stepped, stepped_in_part
from ckpt.migrate.folder import Place
from ckpt.migrate.graph import Graph
from ckpt.migrate.migration import MigrationError, write_migration
from ckpt.migrate.way import AmbiguousEntryError
from ckpt.ops.migrate.new import drafted
from ckpt.rules.document import read_rules
from tests.migrate.refactorings import Rules, State
from tests.migrate.test_walk import arrives, schema_of

START = {"a.q": torch.zeros(2), "a.k": torch.ones(2), "b.w": torch.full((3,), 5.0)}


def renamed(state: State, **names: str) -> State:
    """The state_dict with other last parts of its keys."""
    olds = {key: key.rpartition(".") for key in state}
    return {f"{m}.{names.get(last, last)}": state[key] for key, (m, _, last) in olds.items()}


NAMED = renamed(START, q="query", k="key")
SWAPPED = {**NAMED, "a.query": NAMED["a.key"], "a.key": NAMED["a.query"]}
# One branch renames b.w; the other renames a.q and a.k, and then swaps what they mean.
FORMS = {
    "start": (START, None),
    "one branch": (renamed(START, w="v"), None),
    "other branch, named": (NAMED, None),
    "other branch": (SWAPPED, 2),
    "merged before the swap": (renamed(NAMED, w="v"), None),
    "merged": (renamed(SWAPPED, w="v"), 2),
}


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    place = Place(tmp_path / "migrations", "net.py:Net")

    def add(old: str, new: str, rules: Rules) -> None:
        before, after = (schema_of(*FORMS[form]) for form in (old, new))
        read = read_rules(rules, name=new)
        write_migration(place.folder, drafted(before, after, read, place=place, message=new, on=[]))

    add("start", "one branch", [{"rename": r"^b\.w$->b.v"}])
    names = [{"rename": r"^a\.q$->a.query"}, {"rename": r"^a\.k$->a.key"}]
    add("start", "other branch, named", names)
    add("other branch, named", "other branch", [{"at_once": ["query->key", "key->query"]}])
    return place.graph()


@pytest.mark.parametrize("form", ["start", "one branch", "other branch"])
def test_no_renumbering_is_left_out_where_branches_were_merged(graph: Graph, form: str) -> None:
    way = graph.way(schema_of(*FORMS[form]), schema_of(*FORMS["merged"]))
    assert way is not None
    assert arrives(way, FORMS[form][0], FORMS["merged"][0])


@pytest.mark.parametrize("form", ["other branch, named", "merged before the swap"])
def test_keys_of_two_meanings_are_refused_without_a_number(graph: Graph, form: str) -> None:
    with pytest.raises(AmbiguousEntryError, match="two ways lead there"):
        graph.way(schema_of(FORMS[form][0], None), schema_of(*FORMS["merged"]))


def test_number_of_a_class_is_never_passed_over(graph: Graph) -> None:
    wanted = schema_of(FORMS["merged"][0], 3)
    numbered = [form for form in FORMS.values() if form[1] is not None]
    assert all(graph.way(schema_of(*form), wanted) is None for form in numbered)


def test_back_from_a_number_to_a_class_without_one(graph: Graph) -> None:
    way = graph.way(schema_of(*FORMS["other branch"]), schema_of(*FORMS["other branch, named"]))
    assert way is not None
    assert way.back
    assert arrives(way, SWAPPED, NAMED)


def test_slow_pattern_is_an_error_and_not_a_missing_way(graph: Graph) -> None:
    state = {**START, "a" * 60 + "b": torch.zeros(1)}
    start = begin(schema_of(state, None))
    slow = replace(
        graph.migrations[0], rules=tuple(read_rules([{"rename": "(a|aa)+$->x"}], name=""))
    )
    for run in (lambda: stepped(start, slow), lambda: stepped_in_part(start, slow, ())):
        with pytest.raises(MigrationError, match=f"{slow.name}: .* took over"):
            run()
