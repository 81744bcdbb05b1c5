"""FAULTS 33, 27: many writers of all kinds at once, killed at random."""

from collections.abc import Callable
from pathlib import Path

from tests.effort import by_effort
from tests.faults.storm import storm

WRITERS = by_effort(2, 6, 32)
ROUNDS = by_effort(2, 8, 60)
EACH = by_effort(8, 8, 12)  # commands of a writer in a round


def test_fault_33_storm_of_all_commands_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    figure = storm(
        tmp_path, seed=33, writers=WRITERS, each=EACH, goes_on=lambda rounds: rounds < ROUNDS
    )
    record_property("figure", figure)
