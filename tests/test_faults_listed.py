"""`docs/faults.md` lists the faults that the tests name, and no others."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_listed_fault_has_a_test_and_every_test_a_line() -> None:
    listed = {
        int(number)
        for number in re.findall(r"^\| (\d+) \|", (ROOT / "docs/faults.md").read_text(), re.M)
    }
    named = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for numbers in re.findall(r"def test_fault((?:_(?:and_)?\d\d)+)", path.read_text()):
            named |= {int(number) for number in re.findall(r"\d+", numbers)}
    assert named == listed
