"""A process that runs the old model of a proof: `python -P -m ckpt.ops.migrate.old_child`.

Its module may have the name of one that the new model imports, so one process cannot have both.
The requests are those of `ckpt.migrate.child` and the methods of `ckpt.prove.runs.Model`.
"""

import sys
from pathlib import Path
from typing import Any

from ckpt.definitions import Definition
from ckpt.definitions.importing import DefinitionError
from ckpt.migrate.child import Request, main
from ckpt.ops.migrate.passed import put, put_inputs, taken, taken_inputs
from ckpt.prove.runs import Side
from ckpt.prove.specs import InputSpec

_sides: list[Side] = []  # the one of this process


def _begin(definition: Definition, request: Request) -> dict[str, Any]:
    """Build the model; its weights are always the same ones."""
    import torch

    torch.manual_seed(0)
    side = Side(definition, definition.build().eval())
    _sides[:] = [side]
    return {
        "weights": put(Path(request["file"]), side.weights()),
        "places": side.places(),
        "ties": dict(side.ties()),
    }


def _inputs(_definition: Definition, request: Request) -> dict[str, Any]:
    given = [InputSpec(**{**it, "shape": tuple(it["shape"])}) for it in request["given"]]
    found = enumerate(_sides[0].inputs(given or None))
    return {"inputs": [put_inputs(Path(f"{request['file']}-{at}"), it) for at, it in found]}


def _again(_definition: Definition, _request: Request) -> dict[str, Any]:
    _sides[:] = [_sides[0].again()]
    return {}


def _load(_definition: Definition, request: Request) -> dict[str, Any]:
    import torch

    _sides[0].load(taken(request["state"]), getattr(torch, request["dtype"]))
    return {}


def _run(_definition: Definition, request: Request) -> dict[str, Any]:
    inputs, path = taken_inputs(request["inputs"]), Path(request["file"])
    try:
        if request["modules"]:
            return {"outputs": put(path, _sides[0].first_outputs(inputs))}
        return {"outputs": put(path, _sides[0].run(inputs, seed=request["seed"]))}
    except DefinitionError as error:
        return {"raised": str(error), "hint": error.hint}
    except RuntimeError as error:
        return {"refused": str(error)}


if __name__ == "__main__":
    others = {"begin": _begin, "inputs": _inputs, "again": _again, "load": _load, "run": _run}
    main(sys.argv[1:], others)
