"""Square matrices, of which no shape shows whether they are transposed.

They are transposed like the other matrices of their block. A bare parameter, such as the
`text_projection` of OpenAI's CLIP, that becomes the weight of a layer goes like other bare ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from ckpt.infer.match.group import OPEN
from ckpt.infer.match.sides import Link, Sides
from ckpt.infer.vocabulary import GROUPS
from ckpt.infer.words import template_of, words_of

_ANALOGY = 0.5  # margin of a square matrix that is transposed like its siblings
_WEIGHTS = frozenset(GROUPS[0])
_TABLES = frozenset(("embedding", "embeddings", "embed", "position", "positional", "pos", "token"))
SIBLINGS = "square, and its siblings are transposed"
BARE = "square, and a parameter becomes the weight of a layer"


def with_squares(links: Sequence[Link], sides: Sides) -> list[Link]:
    """Transpose the square matrices that must be like others that are transposed."""
    return [*_like_bare(_like_siblings(links, sides), sides)]


def _is_square(link: Link, sides: Sides) -> bool:
    shape = sides.shapes[sides.kind(link.lefts[0])]
    return len(shape) == 2 and shape[0] == shape[1] > 1


def _like_siblings(links: Sequence[Link], sides: Sides) -> list[Link]:
    """Transpose the square matrices of blocks whose other matrices are all transposed."""
    turned = {_block(link, sides) for link in links if link.verb == "transpose"}
    if not turned:
        return [*links]
    upright = {
        _block(link, sides)
        for link in links
        if not link.verb
        and len(sides.shapes[sides.kind(link.lefts[0])]) == 2
        and not _is_square(link, sides)
    }
    judged = []
    for link in links:
        block = _block(link, sides)
        if link.verb or block not in turned or not _is_square(link, sides):
            judged.append(link)
        else:
            margin = OPEN if block in upright else min(_ANALOGY, link.margin)
            judged.append(replace(link, verb="transpose", evidence=SIBLINGS, margin=margin))
    return judged


def _like_bare(links: Sequence[Link], sides: Sides) -> list[Link]:
    """Transpose square parameters without a layer like those that are not square, or ask."""
    bare = [_is_bare(link, sides) for link in links]
    others = {
        link.verb
        for link, is_bare in zip(links, bare, strict=True)
        if is_bare and not _is_square(link, sides)
    }
    judged = []
    for link, is_bare in zip(links, bare, strict=True):
        if not is_bare or link.verb or not _is_square(link, sides):
            judged.append(link)
        elif others == {"transpose"}:
            margin = min(_ANALOGY, link.margin)
            judged.append(replace(link, verb="transpose", evidence=SIBLINGS, margin=margin))
        else:
            judged.append(replace(link, margin=OPEN, evidence=BARE))
    return judged


def _is_bare(link: Link, sides: Sides) -> bool:
    """Whether a matrix is a parameter of its own on one side, and a layer's weight on the other."""
    if link.verb not in ("", "transpose") or len(sides.shapes[sides.kind(link.lefts[0])]) != 2:
        return False
    keys = sides.paths(0, link.lefts)[0], sides.paths(1, link.rights)[0]
    named = [words_of(key.rpartition(".")[2])[-1:] for key in keys]
    are_weights = [bool(_WEIGHTS & {*last}) for last in named]
    return are_weights[0] != are_weights[1] and not any(
        _TABLES & {*words_of(part)} for key in keys for part in key.split(".")
    )


def _block(link: Link, sides: Sides) -> str:
    """The outermost numbered module of a key, without its number: the repeated block."""
    template = template_of(sides.paths(0, link.lefts)[0])
    return template.partition("#")[0] if "#" in template else template
