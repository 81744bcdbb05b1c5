"""What migrations cost where none is needed: a hook on `load_state_dict`.

A module of 1,000 keys loads its own state_dict, with and without `ckpt.migrating`, in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import ckpt


def seconds(action: Callable[[], object]) -> float:
    """The CPU time of an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """Print the milliseconds of both, and what the hook adds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    rounds = 5 if parser.parse_args().quick else 51
    plain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(500)))
    hooked = ckpt.migrating(nn.Sequential(*(nn.Linear(4, 4) for _ in range(500))))
    state = plain.state_dict()
    assert len(state) == 1_000
    torch.set_num_threads(1)
    times = []
    for _ in range(rounds):
        first = seconds(lambda: plain.load_state_dict(state))
        times.append((first, seconds(lambda: hooked.load_state_dict(state))))
    without, with_hook = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
    print(f"load_state_dict, 1,000 keys       {without:6.2f} ms of CPU")
    print(f"the same with ckpt.migrating      {with_hook:6.2f} ms of CPU")
    print(f"the hook adds                     {with_hook - without:6.2f} ms of CPU")


if __name__ == "__main__":
    main()
