"""Run ckpt, and hold the run for a test once it has shown that it trains.

    python held.py MARKER WORD…

As soon as the run has written its state twice, the file MARKER appears, and the run waits until
MARKER is gone. So a test sends its signal at a moment that it chose, however busy the machine is.
"""

import sys
import time
from pathlib import Path

from ckpt.cli import main

STATES = 2


def hold_after_states(marker: Path) -> None:
    written = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal written
        if event != "os.rename" or not str(arguments[1]).endswith(".state.pt"):
            return
        written += 1
        if written == STATES + 1:  # the audit event comes before the call
            marker.touch()
            while marker.exists():
                time.sleep(0.01)

    sys.addaudithook(watch)


if __name__ == "__main__":
    # Rank 0 alone writes the state, and so it alone is held; the others wait for it.
    hold_after_states(Path(sys.argv.pop(1)))
    main(sys.argv[1:])
