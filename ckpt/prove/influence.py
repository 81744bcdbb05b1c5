"""Which tensors of a model influence its outputs.

Small models: each tensor is replaced by random numbers, one run each. Larger ones: one gradient,
checked by two runs for each 32 tensors, and at most `MOST_RUNS` runs for the tensors that it does
not show: first all of one name at once, then one by one if that changed the outputs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ckpt.prove.arguments import Inputs
from ckpt.prove.outputs import Outputs, difference
from ckpt.prove.result import COUNTER, EMPTY, NO_INFLUENCE, NOT_LOADED, NOT_MEASURED, Unproved
from ckpt.prove.runs import Side, State
from ckpt.prove.values import redrawn

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_WORK = 500_000_000  # tensors × elements for one run each
MOST_RUNS = 256  # after a gradient
_AT_ONCE = 32  # tensors whose gradients are checked by two runs
_STEP = 1e-4  # of the change that other numbers would make
CLEAR = 10  # times the tolerance: a change that a wrong tensor would not hide in


class Influences:
    """Finds the keys of a loaded state_dict whose tensors influence the outputs of a model.

    Attributes:
        found: Their keys.
        by_gradient: Whether the model is too large for one run for each.
    """

    def __init__(
        self, side: Side, inputs: Inputs, compared: Callable[[Outputs], Outputs], clear: float
    ) -> None:
        """Prepare.

        Args:
            side: The model.
            inputs: Cast to its dtype.
            compared: Picks the outputs that count.
            clear: The change of an output, as a part of the largest, that counts.
        """
        self.found: set[str] = set()
        self.by_gradient = False
        self._why: dict[str, str] = {}
        self._sizes: dict[str, float] = {}  # of the outputs, by path
        self._side, self._inputs, self._compared, self._clear = side, inputs, compared, clear

    def measure(self, state: State, dtype: "torch.dtype") -> None:
        """Load a state_dict, and look for the influence of the tensors not found so far."""
        import torch

        self._side.load(state, dtype)
        own = self._side.model.state_dict()
        live: dict[str, Tensor] = {}
        for key in state.keys() - self.found:
            tensor = own.get(key)
            if not state[key].numel():
                self._why[key] = EMPTY
            elif isinstance(tensor, torch.Tensor) and _holds(tensor, state[key]):
                live[key] = tensor
            else:
                self._why[key] = NOT_LOADED
        wanted = [key for key in state if key in live]
        elements = sum(it.numel() for it in own.values() if isinstance(it, torch.Tensor))
        base = self._outputs()
        if len(wanted) * elements <= MOST_WORK:
            self.found.update(key for key in wanted if self._changes(base, live, [key]))
            self._why |= dict.fromkeys(wanted, NO_INFLUENCE)
        else:
            self.by_gradient = True
            self._sizes.clear()
            self._gradient(live)
            self._by_name(base, live, [key for key in wanted if key not in self.found])

    def unproved(self, keys: Iterable[str]) -> tuple[Unproved, ...]:
        """The other keys, each with the reason."""
        return tuple(
            Unproved(key, COUNTER if _is_counter(key) else self._why.get(key, NOT_MEASURED))
            for key in keys
            if key not in self.found
        )

    def _outputs(self) -> Outputs:
        return self._compared(self._side.run(self._inputs))

    def _changes(self, base: Outputs, live: "dict[str, Tensor]", keys: Sequence[str]) -> bool:
        """Whether other values of these tensors change the outputs; they are restored."""
        import torch

        from ckpt.definitions.importing import DefinitionError

        generator = torch.Generator().manual_seed(2)
        before = [live[key].clone() for key in keys]
        try:
            with torch.no_grad():
                for key, tensor in zip(keys, before, strict=True):
                    live[key].copy_(redrawn(tensor, generator))
            return difference(base, self._outputs()).largest > self._clear
        except (RuntimeError, DefinitionError):
            return False  # it does not run with other values: nothing was seen
        finally:
            with torch.no_grad():
                for key, tensor in zip(keys, before, strict=True):
                    live[key].copy_(tensor)

    def _by_name(self, base: Outputs, live: "dict[str, Tensor]", wanted: Sequence[str]) -> None:
        """Change all tensors of one name, ``running_mean``, and each if that has an effect."""
        named: dict[str, list[str]] = {}
        for key in wanted:
            named.setdefault(key.rpartition(".")[2], []).append(key)
        runs = 0
        for keys in sorted(named.values(), key=len):
            if runs == MOST_RUNS:
                break
            runs += 1
            if not self._changes(base, live, keys):
                self._why |= dict.fromkeys(keys, NO_INFLUENCE)
                continue
            for key in keys[: MOST_RUNS - runs]:
                self._why[key] = NO_INFLUENCE
                if self._changes(base, live, [key]):
                    self.found.add(key)
            runs += min(len(keys), MOST_RUNS - runs)

    def _gradient(self, live: "dict[str, Tensor]") -> None:
        """Note the tensors to which a random mixture of the outputs has a clear gradient.

        A gradient may be made up (``w - w.detach()``), so steps along it must have their effect.
        """
        import torch

        parameters = [it for it in self._side.model.parameters() if it.is_floating_point()]
        reached = {it.data_ptr(): it.requires_grad_(True) for it in parameters}
        keys: dict[int, list[str]] = {}
        for key, tensor in live.items():
            if tensor.data_ptr() in reached:
                keys.setdefault(tensor.data_ptr(), []).append(key)
        tensors = [reached[at] for at in keys]
        try:
            mixed = self._mixture(graph=True)
            gradients = torch.autograd.grad(mixed, tensors, allow_unused=True)
        except RuntimeError:  # an operation without a gradient, or none at all: runs have to do
            return
        generator = torch.Generator().manual_seed(3)
        clear: list[tuple[float, Tensor, Tensor]] = []
        for tensor, gradient in zip(tensors, gradients, strict=True):
            value = tensor.detach()
            if gradient is not None:
                step = redrawn(value, generator).to(value.dtype) - value
                size = float((gradient * step).norm())
                clear += [(size, value, gradient)] if size > self._clear else []
        clear.sort(key=lambda each: each[0])
        for at in range(0, len(clear), _AT_ONCE):
            group = clear[at : at + _AT_ONCE]
            if self._follows(group):
                self.found.update(key for _, it, _ in group for key in keys[it.data_ptr()])

    def _follows(self, group: "Sequence[tuple[float, Tensor, Tensor]]") -> bool:
        """Whether the mixture changes with all tensors of a group as their gradients say."""
        import torch

        aim = _STEP * group[0][0]  # the part of each tensor, the smallest first
        moves = [gradient * (aim / float(gradient.square().sum())) for _, _, gradient in group]
        before = [value.clone() for _, value, _ in group]
        seen = []
        for sign in (1, -1):
            with torch.no_grad():
                for (_, value, _), old, move in zip(group, before, moves, strict=True):
                    value.copy_(old + sign * move)
            seen.append(float(self._mixture(graph=False)))
        with torch.no_grad():
            for (_, value, _), old in zip(group, before, strict=True):
                value.copy_(old)
        return abs((seen[0] - seen[1]) / 2 - aim * len(group)) < 0.4 * aim

    def _mixture(self, *, graph: bool) -> "Tensor":
        """The sum of all floating-point outputs, randomly weighted, each of about unit size."""
        import torch

        generator = torch.Generator().manual_seed(4)
        mixed = torch.zeros((), dtype=torch.float64)
        outputs = self._compared(self._side.run(self._inputs, graph=graph))
        for path, tensor in outputs.items():
            if tensor.is_floating_point() and tensor.numel():
                finite = torch.where(tensor.isfinite(), tensor, torch.zeros_like(tensor)).double()
                largest = self._sizes.setdefault(path, float(finite.detach().abs().max()))
                weights = torch.randn(finite.shape, generator=generator, dtype=torch.float64)
                mixed = mixed + (finite * weights).sum() / max(largest, 1e-300)
        return mixed


def _holds(tensor: "Tensor", given: "Tensor") -> bool:
    """Whether a tensor of a model has the values that were loaded."""
    import torch

    return tensor.shape == given.shape and torch.equal(
        torch.nan_to_num(tensor.detach()), torch.nan_to_num(given.to(tensor.dtype))
    )


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"
