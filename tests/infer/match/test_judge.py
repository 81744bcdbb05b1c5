"""What is ambiguous although each pair alone seems likely."""

from ckpt.infer.match.judge import judge
from ckpt.infer.match.sides import Link, sides_of
from ckpt.infer.result import Confidence, Inference
from ckpt.infer.words import Likeness
from ckpt.tensors import TensorEntry


def judged(pairs: dict[str, str]) -> Inference:
    """All tensors of one shape, each pair likely."""
    sides = sides_of(
        [TensorEntry(key, "float32", (4, 8)) for key in pairs],
        [TensorEntry(key, "float32", (4, 8)) for key in pairs.values()],
    )
    places = [{leaf.path: place for place, leaf in enumerate(tree.leaves)} for tree in sides.trees]
    links = [Link((places[0][old],), (places[1][new],), 0.5, "names") for old, new in pairs.items()]
    return judge(links, sides, Likeness({}), {})


def doubts(found: Inference) -> dict[str, str]:
    return {m.source: m.evidence for m in found.matches if m.confidence is Confidence.AMBIGUOUS}


def test_blocks_that_exchange_parts_are_asked() -> None:
    """The convolution goes to one branch, its norm to the other, and the other way round."""
    why = "two modules exchange parts"
    crossed = {"a.conv.weight": "x.conv.weight", "a.norm.weight": "y.norm.weight",
               "b.conv.weight": "y.conv.weight", "b.norm.weight": "x.norm.weight"}  # fmt: skip
    assert doubts(judged(crossed)) == dict.fromkeys(crossed, why)


def test_blocks_that_are_divided_are_not() -> None:
    divided = {"a.conv.weight": "x.conv.weight", "a.norm.weight": "y.norm.weight",
               "b.conv.weight": "z.conv.weight", "b.norm.weight": "z.norm.weight"}  # fmt: skip
    assert not doubts(judged(divided))


def test_norm_of_two_modules_is_asked() -> None:
    why = "one norm from several modules"
    mixed = {"a.weight": "n.weight", "b.running_mean": "n.running_mean"}
    assert doubts(judged(mixed)) == dict.fromkeys(mixed, why)
