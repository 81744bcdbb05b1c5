"""Augmentation: training images, changed at random by transforms of `torchvision.transforms.v2`.

Law: the change of an image is a pure function of seed, epoch and its index, whatever the
micro-batches, processes and loader. So a resumed run sees the same images, bit by bit.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ckpt.definitions.importing import declare_torchvision_ops
from ckpt.errors import UsageError
from ckpt.train.data.windows import epoch_seed
from ckpt.train.random_numbers import restored, seed_all
from ckpt.train.recipes.recipe import calls_of


class Augmentation:
    """The transforms that a recipe names.

    Args:
        text: ``RandomRotation(10),RandomErasing(p=0.2)``, as `calls_of` reads it.
        seed: The recipe's.

    Raises:
        UsageError: torchvision has no such transform, or does not take the arguments.
    """

    def __init__(self, text: str, seed: int) -> None:
        self._text, self._seed = text, seed
        self._transforms = [_transform(*call) for call in calls_of(text) or ()]

    def __call__(self, images: Tensor, indices: Sequence[int], epoch: int) -> Tensor:
        """Change each image for itself.

        Args:
            images: ``(b, c, h, w)`` uint8.
            indices: Of the images in the training set, ``b`` of them.
            epoch: From 1.

        Raises:
            UsageError: A result has another shape or dtype than the image.
        """
        first = epoch_seed("augmentation", self._seed, epoch)
        changed = []
        with restored(images.device):
            for image, index in zip(images, indices, strict=True):
                seed_all((first + index) % 2**63)
                for transform in self._transforms:
                    image = transform(image)
                changed.append(image)
        self._expect_alike(images[0], changed)
        return torch.stack(changed)

    def _expect_alike(self, image: Tensor, changed: Sequence[Tensor]) -> None:
        expected = (tuple(image.shape), image.dtype)
        for each in changed:
            if (tuple(each.shape), each.dtype) != expected:
                raise UsageError(
                    f"--augment {self._text}: gives {tuple(each.shape)} {each.dtype}, expected "
                    f"{expected[0]} {expected[1]} as the images are"
                )


def _transform(name: str, positional: list[Any], named: dict[str, Any]) -> Any:
    declare_torchvision_ops()
    from torchvision.transforms import v2

    found = getattr(v2, name, None)
    if not (isinstance(found, type) and issubclass(found, v2.Transform)):
        from difflib import get_close_matches

        known = [each for each in dir(v2) if isinstance(getattr(v2, each), type)]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else None
        raise UsageError(f"--augment: torchvision.transforms.v2 has no transform {name}", hint=hint)
    try:
        return found(*positional, **named)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--augment: {name}: {error}") from error
