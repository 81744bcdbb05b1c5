"""What names weights or a class: on the command line a ref, in Python also a value."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from torch import nn

    from ckpt.registry.adding import Added
    from ckpt.registry.version import Version

Named = str | PathLike[str]  # a ref, or a `pathlib` path, which always names a file
# What else Python code has of weights: a state_dict, a module, a version, `ckpt.open`'s result.
Weights = Union[Named, Mapping[str, Any], "nn.Module", "Version", "Added"]
# A class, or a function that returns a module, is a definition.
Defined = Union["type[nn.Module]", "Callable[[], nn.Module]"]
WeightsOrClass = Weights | Defined
