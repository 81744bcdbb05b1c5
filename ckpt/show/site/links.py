"""Where the pages of models and versions are, from the folder of the site."""

from collections.abc import Iterable


class Links:
    """The folders of models, distinct also where a file system ignores case.

    Args:
        models: The names of all models; they have only letters, digits, and ``._-``.
    """

    def __init__(self, models: Iterable[str]) -> None:
        self._folders: dict[str, str] = {}
        taken: set[str] = set()
        for name in sorted(models):
            folder, number = name, 1
            while folder.casefold() in taken:
                number += 1
                folder = f"{name}--{number}"
            taken.add(folder.casefold())
            self._folders[name] = f"models/{folder}"

    def folder(self, model: str) -> str:
        """``models/mnist-cnn``."""
        return self._folders[model]

    def model(self, model: str) -> str:
        """``models/mnist-cnn/index.html``."""
        return f"{self.folder(model)}/index.html"

    def version(self, ref: str) -> str:
        """``models/mnist-cnn/v3.html`` of ``mnist-cnn:v3``."""
        model, _, label = ref.rpartition(":")
        return f"{self.folder(model)}/{label}.html"
