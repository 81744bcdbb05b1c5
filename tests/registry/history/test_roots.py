"""When the indexes of a reflog named a manifest for the last time."""

from dataclasses import replace

import pytest

from ckpt.registry.history.changes import Change
from ckpt.registry.history.reflog import Entry
from ckpt.registry.history.roots import last_named

MANIFEST = "sha256:" + "a" * 64
LINE = {"net:v1": {"manifest": MANIFEST}}
TWIN = {"net:v1": {"manifest": "sha256:" + "b" * 64, "also": [MANIFEST]}}
DROP = (Change("net", "version", "v1", "there", None),)
REMOVE = (Change("net", "version", "v1", "there", "removed"),)


def entry(parent: str = "", **fields: object) -> Entry:
    plain = Entry(write_id="", parent=parent, time="", what="", changes=())
    return replace(plain, **fields)


CASES = {
    "the last index names it": ([entry(versions=LINE), entry("0")], "now"),
    "as a removed version": ([entry(versions=LINE), entry("0", changes=REMOVE)], "now"),
    "as the twin of another": ([entry(versions=TWIN), entry("0")], "now"),
    "an older index was put in place": (
        [entry(), entry("0", versions=LINE), entry("1"), entry("0"), entry("3")], "3"),
    "and the newer one again": (
        [entry(), entry("0", versions=LINE), entry("0"), entry("1")], "now"),
    "an index from elsewhere lacks it": (
        [entry(versions=LINE), entry("0"), entry("1", changes=DROP, elsewhere=True), entry("2")],
        "2"),
    "an index from elsewhere has it": (
        [entry(versions=LINE), entry("0", elsewhere=True), entry("1")], "now"),
    "it came back": (
        [entry(versions=LINE), entry("0", changes=DROP, elsewhere=True),
         entry("1", versions=LINE), entry("2")], "now"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_time_is_that_of_the_first_write_without_it(case: str) -> None:
    entries, time = CASES[case]
    log = [replace(each, write_id=str(n), time=str(n)) for n, each in enumerate(entries)]
    assert last_named(log, [MANIFEST], "now") == {MANIFEST: time}
