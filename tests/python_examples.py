"""What the examples of docstrings and of docs/python.md find: two classes, a file, a registry."""

import doctest
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import ckpt
from tests.signing.keys import write_pair


def _classes() -> tuple[type[nn.Module], type[nn.Module]]:
    """`Old` and `Net`, of a module that can be imported by its name, as a person's can."""
    module = ModuleType("nets")
    for name, layer in (("Old", "conv1"), ("Net", "embed1")):

        def init(self: nn.Module, layer: str = layer) -> None:
            nn.Module.__init__(self)
            setattr(self, layer, nn.Conv2d(1, 8, 3))
            self.fc = nn.Linear(8, 2)

        kind = type(name, (nn.Module,), {"__init__": init, "__module__": "nets"})
        setattr(module, name, kind)
    sys.modules["nets"] = module
    return module.Old, module.Net


@contextmanager
def prepared(folder: Path) -> Iterator[dict[str, Any]]:
    """The names that examples use, in a folder with `old.pt`, a registry of `net:v1`, and keys."""
    with chdir(folder):
        torch.manual_seed(0)
        old, net = _classes()
        torch.save(old().state_dict(), "old.pt")
        trained = net()
        ckpt.register(
            trained, name="net", metrics={"accuracy": 0.99}, alias="prod", message="first"
        )
        Path("models").mkdir()
        write_pair(Path())
        Path("runs").mkdir()
        for epoch in (1, 2):
            torch.save({"w": torch.full((4,), float(epoch))}, f"runs/epoch_{epoch}.pt")
        yield {"ckpt": ckpt, "torch": torch, "nn": nn, "Old": old, "Net": net, "net": net()}
    del sys.modules["nets"]


def failures(text: str, name: str, folder: Path) -> str:
    """What the examples of a text print that they do not show."""
    with prepared(folder) as names:
        test = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
        found: list[str] = []
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        doctest.DocTestRunner(optionflags=options).run(test, out=found.append)
    return "".join(found)
