"""The old model of a proof, in a process of its own."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ckpt.definitions.importing import DefinitionError
from ckpt.migrate.described import Builder
from ckpt.ops.migrate.passed import put, put_inputs, taken, taken_inputs
from ckpt.prove.arguments import Inputs
from ckpt.prove.inputs import specs_of
from ckpt.prove.outputs import Outputs
from ckpt.prove.runs import State

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ckpt.prove.inputs import Given

PROGRAM = "ckpt.ops.migrate.old_child"
_SECONDS = 600.0  # for one run


class OldModel:
    """A `ckpt.prove.runs.Model` in the process of a builder, which runs `PROGRAM`.

    Attributes:
        ref: The definition, in messages.
    """

    def __init__(
        self,
        builder: Builder,
        definition: str,
        arguments: Mapping[str, object] | None,
        name: str,
        folder: Path,
    ) -> None:
        """Build it.

        Args:
            builder: The process.
            definition: The definition.
            arguments: Those of the definition.
            name: What messages call it.
            folder: A folder for the files that the processes exchange.

        Raises:
            BuildError: It cannot be built.
        """
        self._builder, self._definition, self._arguments = builder, definition, arguments
        self.ref = name
        self._files = (folder / str(number) for number in count())
        begun = self._answer("begin")
        self._places, self._ties = begun["places"], begun["ties"]
        self._weights = taken(begun["weights"])

    def _answer(self, what: str, **more: object) -> dict[str, Any]:
        return self._builder.answer(
            what,
            self._definition,
            self._arguments,
            seconds=_SECONDS,
            file=str(next(self._files)),
            **more,
        )

    def places(self) -> list[str]:
        """The arguments of `forward` that can be passed by place."""
        return list(self._places)

    def ties(self) -> Mapping[str, str]:
        """Keys of the same tensor as an earlier one."""
        return dict(self._ties)

    def weights(self) -> "OrderedDict[str, Tensor]":
        """The tensors of its state_dict, and the versions of its modules."""
        return self._weights

    def inputs(self, given: "Given") -> list[Inputs]:
        """What to run on, best first; only specifications, or their texts, can be given."""
        asked = [asdict(it) for it in (specs_of(given) if given else ())]
        return [taken_inputs(file) for file in self._answer("inputs", given=asked)["inputs"]]

    def again(self) -> "OldModel":
        """With a new model: one that ran in another dtype may keep tensors of that."""
        self._answer("again")
        return self

    def load(self, state: State, dtype: "torch.dtype") -> None:
        """Load a state_dict strictly, with the floating-point parameters in a dtype."""
        name = str(dtype).removeprefix("torch.")
        self._answer("load", state=put(next(self._files), state), dtype=name)

    def run(self, inputs: Inputs, *, seed: int = 0) -> Outputs:
        """The outputs of one run."""
        return self._run(inputs, seed=seed, modules=False)

    def first_outputs(self, inputs: Inputs) -> "dict[str, Tensor]":
        """The first output of every module with parameters, in the order of the run."""
        return self._run(inputs, seed=0, modules=True)

    def _run(self, inputs: Inputs, **more: object) -> "dict[str, Tensor]":
        answer = self._answer("run", inputs=put_inputs(next(self._files), inputs), **more)
        if "refused" in answer:
            raise RuntimeError(answer["refused"])
        if "raised" in answer:
            raise DefinitionError(answer["raised"], hint=answer["hint"])
        return taken(answer["outputs"])


@contextmanager
def old_model(
    builder: Builder, definition: str, arguments: Mapping[str, object] | None, name: str
) -> Iterator[OldModel]:
    """The old model; its files are removed when the block ends.

    Raises:
        BuildError: It cannot be built.
    """
    with TemporaryDirectory(prefix="ckpt-proof-") as folder:
        yield OldModel(builder, definition, arguments, name, Path(folder))
