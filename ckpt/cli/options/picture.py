"""The file of a picture, as `ckpt plot -o` and `ckpt train --doctor -o` take it."""

from pathlib import Path

from ckpt.errors import UsageError
from ckpt.io.files import already_exists

_FORMS = {".png": "png", ".svg": "svg"}


def picture_form(path: Path, *, replace: bool) -> str:
    """``png`` or ``svg``, by the suffix.

    Raises:
        UsageError: Another suffix, or the file exists and must not be replaced.
    """
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path}: unknown suffix, expected .png or .svg")
    if not replace and path.exists():
        raise already_exists(path)
    return form
