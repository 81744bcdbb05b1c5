"""A process that runs code of others to read a mapping: `python -P -m ckpt.ops.rules.child SOURCE`.

It reads JSON, the tensors of a file where a mapping needs them, and prints one JSON answer. What
the code prints goes to stderr; its standard input is empty.
"""

import json
import os
import sys
from typing import Any

from ckpt.definitions.importing import DefinitionError, find_value, own_code
from ckpt.errors import CkptError, RefError
from ckpt.ops.rules.of_timm import PREFIX as TIMM
from ckpt.ops.rules.of_timm import traced
from ckpt.ops.rules.reading import steps_of

TRANSFORMERS, VLLM = "transformers:", "vllm:"


def main(source: str) -> None:
    """Answer with the steps of a mapping, or with an error."""
    answers, given = os.dup(1), json.load(sys.stdin)
    os.dup2(2, 1)
    try:
        answer: object = read(source, given)
    except CkptError as error:
        answer = {"error": str(error), "hint": error.hint}
    with os.fdopen(answers, "w") as out:
        out.write(json.dumps(answer))


def read(source: str, given: list[list[Any]] | None = None) -> dict[str, Any]:
    """The steps of a mapping, or what it makes of the tensors of a file.

    Args:
        source: The mapping.
        given: The key, dtype and shape of each tensor, for timm's.

    Raises:
        CkptError: There is none.
    """
    try:
        with own_code(source, lambda error: isinstance(error, ValueError)):
            if source.startswith(TIMM):
                return traced(source, given or [])
            return {"steps": steps_of(_value(source))}
    except CkptError:
        raise
    except ValueError as error:
        raise DefinitionError(f"{source}: {error}") from error


def _value(source: str) -> object:
    if source.startswith(TRANSFORMERS):
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        name = source.removeprefix(TRANSFORMERS)
        found: object = get_checkpoint_conversion_mapping(name)
        if found is None:
            raise RefError(f"transformers has no conversion mapping for {name!r}")
        return found
    if source.startswith(VLLM):
        from vllm.model_executor.models import ModelRegistry

        name = source.removeprefix(VLLM)
        if name not in ModelRegistry.models:
            raise RefError(f"vllm has no class {name!r}")
        return ModelRegistry.models[name].load_model_cls()
    return find_value(source)


if __name__ == "__main__":
    main(sys.argv[1])
