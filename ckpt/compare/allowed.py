"""A partial fit: where a state_dict may differ from a definition, and whether it differs elsewhere.

Fine-tuning changes the head, the vocabulary or the position table; the rest must fit all the same.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ckpt.compare.keys import Fit, Pair
from ckpt.rules.patterns import Pattern
from ckpt.tensors import NOT_A_TENSOR, TensorEntry


@dataclass(frozen=True, slots=True)
class Allowed:
    """The keys that may differ, by expressions that may match anywhere in a key.

    Attributes:
        missing: Keys of the definition that the state_dict may lack: they stay new.
        unexpected: Keys of the state_dict that the definition may lack.
        shape: Keys whose shapes may differ. torch loads no tensor of another shape, strictly or
            not, so it is left out and its key stays new.
    """

    missing: Sequence[Pattern] = ()
    unexpected: Sequence[Pattern] = ()
    shape: Sequence[Pattern] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shape)

    def missing_key(self, key: str) -> bool:
        """Whether the state_dict may lack a key that the definition has."""
        return _found(self.missing, key)

    def unexpected_key(self, key: str) -> bool:
        """Whether the state_dict may have a key that the definition lacks."""
        return _found(self.unexpected, key)

    def other_shape(self, key: str) -> bool:
        """Whether a key may have another shape in the definition."""
        return _found(self.shape, key)

    def covers(self, fit: Fit, reshaped: Collection[str]) -> bool:
        """Whether everything that `load_state_dict(strict=False)` reports is allowed.

        Args:
            fit: Its answer.
            reshaped: The missing keys that were left out because of their shape.
        """
        new = (
            self.missing_key(entry.key) or (entry.key in reshaped and self.other_shape(entry.key))
            for entry in fit.missing
        )
        more = (self.unexpected_key(entry.key) for entry in fit.unexpected)
        return not (fit.reshaped or fit.complaints) and all(new) and all(more)


STRICT = Allowed()


Texts = str | Sequence[str]


def allowed(missing: Texts = (), unexpected: Texts = (), shape: Texts = ()) -> Allowed:
    """The differences that are allowed, from the text of one expression or of several.

    Raises:
        RuleError: An expression cannot be read.
    """
    given = {"missing": missing, "unexpected": unexpected, "shape": shape}
    return Allowed(
        **{
            word: tuple(
                Pattern(text, name=f"--allow-{word} '{text:.200}'")
                for text in ([texts] if isinstance(texts, str) else texts)
            )
            for word, texts in given.items()
        }
    )


def _found(patterns: Sequence[Pattern], key: str) -> bool:
    return any(pattern.search(key) is not None for pattern in patterns)


def other_shapes(
    mine: Sequence[TensorEntry], theirs: Sequence[TensorEntry], named: Mapping[str, str]
) -> tuple[Pair, ...]:
    """The tensors of two sides that have one name and two shapes.

    One name is the same key, or one key is the end of the other, as of a wrapped model; then no
    other key may end so.

    Args:
        mine: The tensors without a place on the other side.
        theirs: The tensors that the first side lacks.
        named: Old key to the new key that rules give it, as far as they name one.
    """
    ours = {named.get(entry.key, entry.key): entry for entry in mine}
    others = {entry.key: entry for entry in theirs}
    pairs = {key: (ours[key], other) for key, other in others.items() if key in ours}
    by_end = [
        (ours[end], other) for key, other in others.items() for end in _ends(key) & ours.keys()
    ]
    by_end += [
        (entry, others[end]) for key, entry in ours.items() for end in _ends(key) & others.keys()
    ]
    ends = [Counter(pair[side].key for pair in by_end) for side in (0, 1)]
    for one, other in by_end:
        if ends[0][one.key] == ends[1][other.key] == 1:
            pairs.setdefault(other.key, (one, other))
    return tuple(
        (one, other)
        for one, other in pairs.values()
        if one.shape != other.shape and NOT_A_TENSOR not in (one.dtype, other.dtype)
    )


def _ends(key: str) -> set[str]:
    """``b.c`` and ``c`` of ``a.b.c``."""
    parts = key.split(".")
    return {".".join(parts[start:]) for start in range(1, len(parts))}
