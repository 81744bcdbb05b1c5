"""The result of an inference: which key becomes which, how sure that is, what stays open.

Law: every source key is in a match, in an operation or in `dropped`; every target key is in
exactly one match or operation, or in `missing`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

# What a quantised weight is multiplied with or looked up in, beside it or below it. Sources: the
# files of compressed-tensors, DeepSeek-V3, NVFP4, GPTQ and AWQ, bitsandbytes and ComfyUI; and the
# `alpha` of kohya's LoRA, whose quotient with the rank is a factor.
_COMPANION = re.compile(
    r"(?:(?P<owner>.*)\.)?(?P<name>(?:weight|input|output|k|v)_scale(?:_inv|_2)?|scale_(?:weight|input)"
    r"|weight_(?:global_scale|zero_point|g_idx|shape|format)|scaled_fp8|scales|qzeros|g_idx|SCB"
    r"|(?:nested_)?(?:absmax|quant_map)|quant_state\..+|alpha)",
    re.DOTALL,
)
_OF_ALPHA = re.compile(r"(.+)\.(?:lora|hada|lokr|oft)_.*", re.DOTALL)


ONLY_SHAPE = "the only one of its shape"  # the evidence of a pair
COPIES = "copies of the target"  # the evidence of a guess which one is wanted


DROPPED = ""  # among candidates: the tensor may have no place in the target


class Confidence(StrEnum):
    """How sure a pair is.

    `CERTAIN`: the same bytes, and no other tensor has them; or names that agree, and no other
    tensor of that shape on either side. `LIKELY`: the evidence prefers the pair by a margin.
    `AMBIGUOUS`: it does not, or contradicts itself.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Match:
    """A tensor that keeps its elements.

    Attributes:
        source: Its key.
        target: Its new key; a source with several targets has a match for every one.
        confidence: How sure the pair is.
        margin: How much better it is than the next best, from 0 to 1.
        candidates: For an ambiguous pair, all possible target keys, at least two; `target`, the
            best guess, is one of them, and `DROPPED` may be.
        evidence: The deciding evidence, in words.
    """

    source: str
    target: str
    confidence: Confidence
    margin: float
    candidates: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a pair is ambiguous although names or structure seem to decide it.

    Attributes:
        candidates: Possible target keys.
        evidence: What disagrees, in words.
    """

    candidates: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, slots=True)
class InferredOperation:
    """Tensors that are made of others.

    Attributes:
        verb: ``split``, ``concat``, ``transpose``, ``permute``, ``reshape``, ``stack`` or
            ``unstack``.
        sources: Several for a concat, in the order of the parts, and for a stack, in the order of
            the slices; the parts of one slice follow each other.
        targets: Several for a split or an unstack, in the same order.
        confidence: How sure the operation is.
        margin: From 0 to 1.
        dim: The dimension of a split or concat.
        sizes: The sizes of the parts along it; in a stack, of the parts that are joined along
            the first dimension of every slice, if there are several.
        evidence: The deciding evidence, in words.
        dims: The new order of the dimensions: of the tensor for ``permute``, of every slice in a
            stack, after its parts are joined; empty if they stay.
    """

    verb: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    confidence: Confidence
    margin: float
    dim: int = 0
    sizes: tuple[int, ...] = ()
    evidence: str = ""
    dims: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """The whole mapping, as the law of this module says.

    Attributes:
        matches: Pairs of tensors.
        operations: What makes tensors of others.
        dropped: Source keys without a place.
        missing: Target keys without a source.
        copies: If the source has several copies of the target, their modules; the matches are
            those of the first.
    """

    matches: tuple[Match, ...]
    operations: tuple[InferredOperation, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    copies: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether nothing is ambiguous."""
        return not any(self.ambiguous())

    @property
    def certain(self) -> bool:
        """Whether everything is."""
        found = [it.confidence for it in self.matches]
        found += [it.confidence for it in self.operations]
        return all(it is Confidence.CERTAIN for it in found)

    def ambiguous(self) -> Iterator[Match | InferredOperation]:
        """The pairs and operations that only a person, or tensor values, can decide."""
        yield from (match for match in self.matches if match.confidence is Confidence.AMBIGUOUS)
        yield from (made for made in self.operations if made.confidence is Confidence.AMBIGUOUS)

    @property
    def lost_companions(self) -> dict[str, str]:
        """The dropped companions of weights that are kept, each with its last part.

        Without them the weights mean something else, and no shape tells.
        """
        kept = {match.source for match in self.matches}
        kept |= {source for made in self.operations for source in made.sources}
        found = [(key, match) for key in self.dropped if (match := _COMPANION.fullmatch(key))]
        owners = set(_owners(kept)) if found else set()
        factors = {match[1] for key in kept if (match := _OF_ALPHA.fullmatch(key))}
        return {
            key: match["name"]
            for key, match in found
            if match["owner"] in (factors if match["name"] == "alpha" else owners)
        }

    @property
    def renames(self) -> dict[str, list[str]]:
        """Source key to target keys of all matches, in the order of `matches`."""
        found: dict[str, list[str]] = {}
        for match in self.matches:
            found.setdefault(match.source, []).append(match.target)
        return found


def _owners(keys: Iterable[str]) -> Iterator[str | None]:
    """The keys and the modules around them, which may own a companion; None is the root."""
    yield None
    for key in keys:
        while key:
            yield key
            key = key.rpartition(".")[0]
