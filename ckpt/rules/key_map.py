"""Key maps: renames that are listed one by one and applied at once, so that a swap works."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt.errors import RuleError
from ckpt.rules.planned import Renaming

# Tensors that belong to a quantised weight and begin with its name. Sources: compressed-tensors
# (scale, zero_point, g_idx, shape, global_scale), DeepSeek-V3's weights (scale_inv) and NVFP4
# checkpoints (scale_2). A key below the weight, such as weight.absmax, needs no list.
_COMPANION = re.compile(
    r"(.+)_(?:scale|scale_inv|scale_2|global_scale|zero_point|g_idx|shape)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class KeyMap(Renaming):
    """Old to new: whole keys, or modules with all keys below them.

    A key is looked up whole first; then by the quantised weight to which it belongs, as
    ``fc.weight_scale`` belongs to ``fc.weight``; then by its longest module that is listed.

    Attributes:
        text: Its name in messages, e.g. that of its file.
        pairs: E.g. ``{"conv1": "embed1", "fc1.weight": "head.weight"}``.
    """

    text: str
    pairs: Mapping[str, str]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        used = {self.listed(key) for key in keys}
        return next((old for old in self.pairs if old not in used), None)

    def apply(self, key: str) -> str:
        old = self.listed(key)
        return key if old is None else self.pairs[old] + key[len(old) :]

    def listed(self, key: str) -> str | None:
        """The listed name that decides about `key`."""
        if key in self.pairs:
            return key
        quantised = _COMPANION.fullmatch(key)
        name = quantised[1] if quantised and quantised[1] in self.pairs else key
        while name not in self.pairs:
            name, dot, _ = name.rpartition(".")
            if not dot:
                return None
        return name


def key_map(document: object, *, name: str) -> KeyMap:
    """Make a map from a parsed JSON or TOML document.

    Raises:
        RuleError: The document is not an object of string to string.
    """
    if not isinstance(document, dict) or not document:
        raise RuleError(
            f"{name}: not a map; expected an object of old key to new key, with at least one"
        )
    for old, new in document.items():
        if not isinstance(new, str) or not old or not new:
            raise RuleError(
                f"{name}: {old!r} is mapped to {new!r}; both must be non-empty strings",
                hint='in TOML, a key with dots needs quotes: "conv1.weight" = "embed1.weight"',
            )
    return KeyMap(name, document)
