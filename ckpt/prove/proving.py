"""Run two classes under a plan on one input, and say which tensors that proves.

Cost: thirteen runs of a model, those of `influence`, and only if the outputs differ, two that
record every module and those of `alternatives`. In float64, or float32 for models that run in
nothing else.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ckpt.definitions import Definition
from ckpt.definitions.importing import DefinitionError
from ckpt.prove.alternatives import alternatives
from ckpt.prove.arguments import Inputs, renamed_arguments
from ckpt.prove.influence import CLEAR, Influences
from ckpt.prove.inputs import HINT, described
from ckpt.prove.outputs import Difference, Outputs, apart, difference, is_finite, paired
from ckpt.prove.result import Alternative, Proof, UnprovableError
from ckpt.prove.runs import Model, Side, State, seeded_runs
from ckpt.prove.values import all_evaluated, random_state
from ckpt.rules.expressions import Expression, Source, sources_of, whole_source
from ckpt.rules.plan import Plan
from ckpt.tensors import StateDict, with_versions
from ckpt.writing.outcome import outcome

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ckpt.prove.inputs import Given

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}  # as a part of the largest output


def prove(
    plan: Plan,
    state: State,
    old: Definition | Model,
    new: Definition,
    inputs: "Given" = None,
    *,
    numbers: Mapping[str, int | None] = MappingProxyType({}),
) -> Proof:
    """Compare the outputs of two models; the generators of torch, Python and numpy stay.

    Args:
        plan: What becomes of every tensor of `state`; the result fits `new`.
        state: A state_dict that fits `old`, tied tensors by all their names.
        old: The definition of the old model, whose own weights do not matter; or that model.
        new: That of the new one.
        inputs: A shape; texts like ``1x3x224x224`` and ``ids=1x16:int64<1000``; or tensors, by
            place or by name. None derives them from the old model.
        numbers: What the metadata of the new root module says otherwise; None for what it lacks.

    Raises:
        UnprovableError: A model is random even from one seed, or returns nothing to compare.
        FitError: A state_dict does not fit its definition.
        DefinitionError: A model fails on the input.
        UsageError: `inputs` are not valid, or cannot be derived.
    """
    import torch

    with seeded_runs():
        torch.manual_seed(0)
        begun = Side(old, old.build().eval()) if isinstance(old, Definition) else old
        model = new.build().eval()
        side = Side(new, model, renamed_arguments(begun.places(), model))
        made = _made_with_aliases(plan, state, side)
        first, old_inputs, dtype = _running(begun, state, inputs)
        return _Trial(plan, state, (first, side), old_inputs, dtype, made, numbers).proof()


def _made_with_aliases(plan: Plan, state: State, new: Side) -> dict[str, Expression]:
    """How every tensor of the result is made, and those that it has under other names only."""
    made: dict[str, Expression] = {tensor.key: tensor.made_of for tensor in plan.tensors}
    used = {key for it in made.values() for key in sources_of(it)}
    used |= {dropped.key for dropped in plan.dropped}
    needed = new.model.state_dict().keys() - made.keys()
    for key in state.keys() - used:
        name = plan.aliases.get(key, key)
        if name in needed:
            dtype = str(state[key].dtype).removeprefix("torch.")
            made[name] = Source(key, dtype, tuple(state[key].shape))
    return made


def _running(side: Model, state: State, given: "Given") -> "tuple[Model, Inputs, torch.dtype]":
    """The first input on which the old model runs, and the dtype in which it does."""
    import torch

    failure: Exception | None = None
    candidates = [*side.inputs(given)]
    for dtype in (torch.float64, torch.float32):  # some models run in float32 only
        side = side if dtype == torch.float64 else side.again()
        side.load(state, dtype)
        for inputs in candidates:
            try:
                side.run(inputs.cast(dtype))
            except (RuntimeError, DefinitionError) as error:
                failure = failure or error
            else:
                return side, inputs, dtype
    if isinstance(failure, DefinitionError):
        raise failure
    raise _does_not_run(side, candidates[0], failure) from failure


def _does_not_run(side: Model, inputs: Inputs, error: Exception | None) -> DefinitionError:
    shown = ", ".join(" ".join(map(str, it.shape)) for it in described(inputs))
    text = " ".join(str(error).split())
    return DefinitionError(f"{side.ref} does not run on {shown}: {text}", hint=HINT)


@dataclass(frozen=True, slots=True)
class _Trial:
    """Both models, and what they run on."""

    plan: Plan
    state: State
    sides: tuple[Model, Side]
    inputs: Inputs
    dtype: "torch.dtype"
    made: Mapping[str, Expression]
    numbers: Mapping[str, int | None]

    def proof(self) -> Proof:
        """The proof, in float32 if the new model runs in nothing else."""
        import torch

        try:
            return self._proof()
        except RuntimeError as error:
            if self.dtype != torch.float64:
                raise _does_not_run(self.sides[1], self.inputs, error) from error
        old, new = self.sides
        return replace(self, sides=(old.again(), new.again()), dtype=torch.float32).proof()

    def _proof(self) -> Proof:
        made = self._result(self.made, self.state)
        self._load(self.state, made)
        first, results = self._compared()
        self._expect_outputs(results)
        seeded = [self._is_seeded(side) for side in self.sides]
        agrees = first.largest <= self._tolerance
        begun = Proof(
            agrees,
            described(self.inputs),
            str(self.dtype).removeprefix("torch."),
            (first.largest, None),
            first.compared,
            seeded=any(seeded),
        )
        if not agrees:
            return self._refuted(begun)
        drawn = self._random()
        random_made = self._result(self.made, drawn)
        self._load(drawn, random_made)
        second, results = self._compared()
        if not (is_finite(results[0]) and is_finite(results[1])):
            return self._with_influence(begun, results, [made])
        begun = replace(begun, largest=(first.largest, second.largest))
        if second.largest > self._tolerance:
            return self._refuted(replace(begun, agrees=False))
        return self._with_influence(begun, results, [random_made, made])

    @property
    def _tolerance(self) -> float:
        return TOLERANCE[str(self.dtype).removeprefix("torch.")]

    def _result(self, made: Mapping[str, Expression], state: State) -> State:
        """The state_dict of the result, with the versions of its modules."""
        result = OrderedDict(all_evaluated(made, state))
        versions = getattr(state, "_metadata", None)
        if versions is not None:
            moved = outcome(self.plan, StateDict((), (), versions)).versions
            root = {**(moved or {}).get("", {}), **self.numbers}
            known = {name: number for name, number in root.items() if number is not None}
            with_versions(result, {**(moved or {}), "": known})
        return result

    def _random(self) -> State:
        """Random tensors; those stay that the result does not hold, as it may work them out."""
        used = {key for made in self.made.values() for key in sources_of(made)}
        same = self._same()
        used |= {first for key, first in same.items() if key in used}
        return random_state(self.state, used, same)

    def _load(self, state: State, made: State) -> None:
        for side, tensors in zip(self.sides, (state, made), strict=True):
            side.load(tensors, self.dtype)

    def _run(self, side: Model, *, seed: int = 0) -> Outputs:
        return side.run(self.inputs.cast(self.dtype), seed=seed)

    def _compared(self) -> tuple[Difference, tuple[Outputs, Outputs]]:
        results = self._run(self.sides[0]), self._run(self.sides[1])
        return difference(*results), results

    def _is_seeded(self, side: Model) -> bool:
        """Whether the outputs depend on the seed; with one seed they must be the same."""
        runs = [self._run(side, seed=seed) for seed in (0, 0, 1)]
        if difference(runs[0], runs[1]).largest > 0:
            raise UnprovableError(
                f"{side.ref}: two runs on the same input, from the same seed, give "
                "different outputs: not deterministic, cannot be proved by outputs"
            )
        return difference(runs[0], runs[2]).largest > 0

    def _expect_outputs(self, results: tuple[Outputs, Outputs]) -> None:
        for side, outputs in zip(self.sides, results, strict=True):
            if not outputs:
                raise UnprovableError(f"{side.ref}: returns no tensor to compare")
            if not is_finite(outputs):
                raise UnprovableError(
                    f"{side.ref}: no output is finite, so nothing can be compared",
                    hint=HINT,
                )

    def _same(self) -> dict[str, str]:
        """Keys of the source that share a tensor in a model, and the first one of each."""
        import torch

        first: dict[str, str] = {}

        def leader(key: str) -> str:
            while key in first:
                key = first[key]
            return key

        old_of = {new: whole_source(it) for new, it in self.made.items()}
        pairs = [*self.sides[0].ties().items()]
        pairs += [
            (a, b)
            for pair in self.sides[1].ties().items()
            for a, b in [tuple(map(old_of.get, pair))]
            if a is not None and b is not None and torch.equal(self.state[a], self.state[b])
        ]
        for key, other in pairs:
            one, two = leader(key), leader(other)
            if one != two and one in self.state and two in self.state:
                first[one] = two
        return {key: leader(key) for key in first}

    def _with_influence(
        self, proof: Proof, results: tuple[Outputs, Outputs], states: Sequence[State]
    ) -> Proof:
        """The proof, with what influences the outputs of the new model that were compared."""
        paths = {path for _, path in paired(*results)}

        def compared(outputs: Outputs) -> Outputs:
            return {path: it for path, it in outputs.items() if path in paths}

        found = Influences(
            self.sides[1], self.inputs.cast(self.dtype), compared, CLEAR * self._tolerance
        )
        keys = [tensor.key for tensor in self.plan.tensors]
        for state in states:
            found.measure(state, self.dtype)
        return replace(
            proof,
            influential=tuple(key for key in keys if key in found.found),
            unproved=found.unproved(keys),
            by_gradient=found.by_gradient,
        )

    def _refuted(self, proof: Proof) -> Proof:
        """The proof that the outputs differ: where they begin to, and what would agree."""
        drawn = self._random()
        state = self.state if proof.largest[1] is None else drawn
        self._load(state, self._result(self.made, state))
        inputs = self.inputs.cast(self.dtype)
        seen = [side.first_outputs(inputs) for side in self.sides]
        proof = replace(proof, differs_at=self._parting(seen))
        return replace(proof, alternative=self._alternative(proof, drawn))

    def _parting(self, seen: "Sequence[Mapping[str, Tensor]]") -> tuple[str, str] | None:
        """The first module, in the order of the old model's run, whose counterpart differs."""
        twins = {
            old.rpartition(".")[0]: key.rpartition(".")[0]
            for key, made in self.made.items()
            for old in sources_of(made)
        }
        for module, output in seen[0].items():
            other = seen[1].get(twins.get(module, ""))
            if other is not None and apart(output, other) > self._tolerance:
                return module, twins[module]
        return None

    def _alternative(self, proof: Proof, drawn: State) -> Alternative | None:
        """The first alternative under which the outputs agree with both states."""
        old, new = self.sides
        wanted = []
        for state in (self.state, drawn):
            old.load(state, self.dtype)
            wanted.append((state, self._run(old)))
        for tried in alternatives(self.made, proof.differs_at[1] if proof.differs_at else None):
            if all(self._agrees(new, tried, *each) for each in wanted):
                return tried
        return None

    def _agrees(self, side: Side, tried: Alternative, state: State, outputs: Outputs) -> bool:
        side.load(self._result(tried.made, state), self.dtype)
        try:
            return difference(outputs, self._run(side)).largest <= self._tolerance
        except (RuntimeError, DefinitionError):
            return False
