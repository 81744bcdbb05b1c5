"""The change that `ckpt redo` brought back, as text and as JSON: as for `ckpt undo`."""

from ckpt.show.undo import undone_data as redone_data
from ckpt.show.undo import undone_text as redone_text

__all__ = ["redone_data", "redone_text"]
