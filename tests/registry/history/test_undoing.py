"""Which writes are undone, by what undid them."""

from dataclasses import replace

import pytest

from ckpt.registry.history.changes import Change
from ckpt.registry.history.reflog import Entry
from ckpt.registry.history.undoing import written

TAG = Change("net", "tag", "x", None, ("v1",))
ENTRY = Entry(write_id="", parent="", time="", what="tag", changes=(TAG,))


def chain(*undoes: str | None) -> list[Entry]:
    """The writes ``0``, ``1``, …, newest first, each with the one that it undid."""
    return [
        replace(ENTRY, write_id=str(number), undoes=undid) for number, undid in enumerate(undoes)
    ][::-1]


@pytest.mark.parametrize(
    ("undoes", "undone"),
    [
        ((None, None), ""),
        ((None, None, "1"), "1"),
        ((None, None, "1", "0"), "01"),
        ((None, None, "1", "0", "3"), "13"),
        ((None, None, "1", "0", "3", "2"), "23"),
        ((None, "0", "1", "0"), "01"),
        ((None, "0", "1", "2"), "02"),
        ((None, "7"), ""),
        (("1", "0"), "0"),
        (("0", None), ""),
    ],
    ids=["none", "undo", "twice", "redo", "redo twice", "undo again", "undo of a redo",
         "of a write that is not there", "circle", "itself"],
)  # fmt: skip
def test_write_is_undone_as_long_as_its_undo_is_not(
    undoes: tuple[str | None, ...], undone: str
) -> None:
    found = written(chain(*undoes))
    assert "".join(each.entry.write_id for each in found[::-1] if each.is_undone) == undone


def test_redo_is_about_the_first_change() -> None:
    *_, change = found = written(chain(None, "0", "1", "2", "3"))
    assert [each.origin.write_id for each in found] == ["0"] * 5
    assert [each.undoes for each in found] == [False, True, False, True, False]
    assert [each.is_change for each in found] == [False] * 4 + [True]
    assert change.is_undone is False
