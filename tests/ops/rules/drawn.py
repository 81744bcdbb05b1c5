"""Keys made of the pieces of patterns: some match, some nearly."""

import random
import re
from collections.abc import Iterator, Sequence

_GENERAL = ("model", "layers", "0", "11", "weight", "bias", "norm", "attn", "weight_scale", "x")


def example(pattern: str, rng: random.Random) -> str:
    """A text that the pattern probably matches."""
    text = re.sub(r"\(\?[!=<][^)]*\)|\(\?P<\w+>|\(\?:|[\^$]", "", pattern)
    text = re.sub(r"\(?\\d\+?\)?|\(?\[0-9\]\+?\)?", lambda _: str(rng.choice((0, 3, 12))), text)
    text = re.sub(r"\(([^()]*\|[^()]*)\)", lambda group: rng.choice(group[1].split("|")), text)
    text = re.sub(r"\(?(?:\.|\[\^\.\]|\\w)[*+]\??\)?", lambda _: rng.choice(_GENERAL), text)
    text = text.replace("*.", f"{rng.choice((0, 2))}.").replace("\\", "")
    return re.sub(r"[()?*+\[\]|]", "", text)


def keys_of(patterns: Sequence[str], count: int, seed: str) -> Iterator[str]:
    """Keys; the same for the same seed."""
    rng = random.Random(seed)
    pieces = [*_GENERAL, *(it for p in patterns for it in re.findall(r"[A-Za-z_0-9]+", p))]
    for _ in range(count):
        parts = [example(rng.choice(patterns), rng) for _ in range(rng.choice((1, 1, 2)))]
        for _ in range(rng.randrange(4)):
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(pieces))
        key = rng.choice((".", ".", ".", "_", "")).join(parts)
        if key and rng.random() < 0.3:  # a near miss
            at = rng.randrange(len(key))
            key = key[:at] + rng.choice(("", "_", ".", "s")) + key[at + 1 :]
        key = re.sub(r"\.{2,}", ".", key).strip(".")
        if key:
            yield key
