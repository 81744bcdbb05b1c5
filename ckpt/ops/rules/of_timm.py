"""timm's filter functions, traced: what they make of the tensors of one file, as plain JSON.

A filter function is code, so a process runs it that has nothing else to do. It sees tensors
without values.
Sources: timm 1.0.31, `models/_builder.py` (`build_model_with_cfg` hands it to `load_pretrained`,
which calls it with the state_dict and the model) and `create_model`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckpt.definitions.importing import DefinitionError, declare_torchvision_ops, written_arguments
from ckpt.errors import RefError

PREFIX = "timm:"


def traced(source: str, entries: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What the filter function of a model makes of tensors.

    Args:
        source: ``timm:MODEL``, or ``timm:MODEL(img_size=384)`` with arguments of `create_model`.
        entries: The key, dtype and shape of each tensor.

    Returns:
        ``made``, the note of each key; ``wanted``, the shapes that the model has.

    Raises:
        RefError: There is no such model.
        DefinitionError: Its function fails on these tensors.
        ValueError: The code does what cannot be traced.
    """
    import torch

    from ckpt.ops.rules.tracing import note_of
    from ckpt.ops.rules.tracing import source as tensor

    model, change = model_of(source)
    state: Mapping[str, object] = {key: tensor(key, dtype, shape) for key, dtype, shape in entries}
    try:
        with torch.no_grad():
            made = _called(change, dict(state), model) if change else state
    except (LookupError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
        raise DefinitionError(
            f"{source}: its function raises {type(error).__name__}: {error}",
            hint="is --keys-of a file with weights of this model?",
        ) from error
    return {
        "made": {
            key: note_of(it) if isinstance(it, torch.Tensor) else ["computed", ["no tensor"], []]
            for key, it in made.items()
        },
        "wanted": {key: list(it.shape) for key, it in model.state_dict().items()},
    }


def _called(change: Callable[..., Any], state: dict[str, object], model: object) -> Any:
    """As `load_pretrained` calls it; some take the state_dict alone."""
    try:
        inspect.signature(change).bind(state, model)
    except TypeError:
        return change(state)
    return change(state, model)


def model_of(source: str) -> tuple[Any, Callable[..., Any] | None]:
    """A model on the meta device, and its filter function, if it has one."""
    declare_torchvision_ops()
    import timm
    import torch
    from timm.models import _builder

    name, bracket, rest = source.removeprefix(PREFIX).partition("(")
    arguments: dict[str, Any] = written_arguments(source, f"({rest}") if bracket else {}
    if not timm.is_model(name):
        near = name and (timm.list_models(f"*{name.partition('.')[0]}*")[:3] or _near(name))
        hint = f"did you mean {', '.join(PREFIX + it for it in near)}" if near else None
        raise RefError(f"timm has no model {name!r}", hint=hint)
    found: list[Callable[..., Any] | None] = []

    def load_pretrained(*_: object, filter_fn: Callable[..., Any] | None = None, **__: Any) -> None:
        found.append(filter_fn)

    usual, _builder.load_pretrained = _builder.load_pretrained, load_pretrained
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=True, **arguments)
    finally:
        _builder.load_pretrained = usual
    return model, found[0] if found else None


def _near(name: str) -> list[str]:
    from difflib import get_close_matches

    import timm

    return get_close_matches(name, timm.list_models(), n=3)
