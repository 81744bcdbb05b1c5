"""A process that builds definitions for another one: `python -P -m ckpt.migrate.child`.

It reads a JSON request a line and writes a JSON answer a line. What a definition prints goes to
stderr, also what C code prints; its standard input is empty. A request that takes longer than its
time ends the process, even if nobody waits for it any more.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ckpt.definitions import Definition, find_definition
from ckpt.definitions.importing import DefinitionError
from ckpt.errors import CkptError, RefError
from ckpt.loading import ask_torch
from ckpt.tensors import StateDict, TensorEntry

_GRACE = 10  # seconds, after which nobody waits for an answer
Request = Mapping[str, Any]
Answers = Callable[[Definition, Request], dict[str, Any]]
_PLAIN = (str, int, float, bool, type(None))


def main(words: list[str], others: Mapping[str, Answers] = MappingProxyType({})) -> None:
    """Answer requests until there are no more.

    Args:
        words: None; or the folder of a repository, and that of the same repository at another
            revision, from which alone definitions may import.
        others: What answers requests that are not of this module, by their word.
    """
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    trees = (Path(words[0]), Path(words[1])) if words else None
    if trees:
        _look_in(*trees)
    with suppress(ImportError, OSError):  # which the answer to a request says
        import torch  # noqa: F401 - before somebody waits for it
    with os.fdopen(requests, encoding="utf-8") as given, os.fdopen(answers, "w") as out:
        for line in given:
            request = json.loads(line)
            signal.alarm(int(request["seconds"]) + _GRACE)
            answer = json.dumps(_answer(request, trees, others)) + "\n"
            try:
                out.write(answer)
                out.flush()
            except OSError:  # the code of a definition closed it, or nobody waits any more
                os._exit(1)
            signal.alarm(0)


def _answer(
    request: Mapping[str, Any], trees: tuple[Path, Path] | None, others: Mapping[str, Answers]
) -> dict[str, Any]:
    try:
        definition = _found(request["definition"], request["arguments"])
        answer = {"describe": _describe, "ask": _ask, **others}[request["do"]](definition, request)
        if trees:
            _expect_within(definition.ref, *trees)
        return answer
    except CkptError as error:
        is_missing = isinstance(error, RefError)
        return {"error": str(error), "hint": error.hint, "missing": is_missing}
    except KeyboardInterrupt:  # its own: a terminal's does not reach this session
        text = f"{request['definition']}: raises KeyboardInterrupt"
        return {"error": text, "hint": None, "missing": False}


def _describe(definition: Definition, _request: Request) -> dict[str, Any]:
    state, path = definition.state(), definition.path
    return {"file": None if path is None else str(path.absolute()), "state": plain(state)}


def _ask(definition: Definition, request: Request) -> dict[str, Any]:
    return asdict(ask_torch(definition, read_state(request["state"])))


@cache
def _found(ref: str, arguments: str) -> Definition:
    from ast import literal_eval

    return find_definition(ref, literal_eval(arguments))


def plain(state: StateDict) -> dict[str, Any]:
    """A state_dict as a JSON document; of the versions of modules, what is text or a number."""
    versions = state.versions
    if versions is not None:
        versions = {
            module: {name: it for name, it in numbers.items() if isinstance(it, _PLAIN)}
            for module, numbers in versions.items()
            if isinstance(numbers, Mapping)
        }
    return {
        "tensors": [[entry.key, entry.dtype, list(entry.shape)] for entry in state.entries],
        "others": list(state.others),
        "versions": versions,
        "tied": dict(state.tied),
    }


def read_state(document: Mapping[str, Any]) -> StateDict:
    """The state_dict that `plain` made a document of."""
    tensors = [TensorEntry(key, dtype, tuple(shape)) for key, dtype, shape in document["tensors"]]
    others = tuple(document["others"])
    return StateDict(tuple(tensors), others, document["versions"], document["tied"])


def _look_in(repository: Path, tree: Path) -> None:
    """Let imports find another revision's modules where they would find the present ones.

    Where the present ones are installed as editable, `sys.path` or a finder of the installer names
    them; finders come last.
    """
    own = [Path(sys.prefix), Path(sys.base_prefix)]
    inside = [
        Path(entry)
        for entry in sys.path
        if Path(entry).is_relative_to(repository)
        and not any(Path(entry).is_relative_to(folder) for folder in own)
    ]
    then = [str(tree / entry.relative_to(repository)) for entry in inside]
    sys.path[:] = [*then, *sys.path, str(Path.cwd()), str(Path.cwd() / "src")]


def _expect_within(ref: str, repository: Path, tree: Path) -> None:
    """Refuse a definition that imported modules of the present work tree."""
    own = [tree, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent.parent]
    for name, module in [*sys.modules.items()]:
        file = Path(getattr(module, "__file__", None) or os.devnull)
        if file.is_relative_to(repository) and not any(map(file.is_relative_to, own)):
            raise DefinitionError(
                f"{ref}: imports {name} of the present work tree, {file}",
                hint="name the class by its file, in the folder of the project",
            )


if __name__ == "__main__":
    main(sys.argv[1:])
