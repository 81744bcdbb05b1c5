"""Changes of rows that no shape shows, in the families of models that are known to have them.

Sources: `permute` in transformers' ``convert_llama_weights_to_hf.py`` and in torchtune's
``convert_weights.py`` (rotary positions), transformers' ``modeling_gpt_neox.py`` and InternLM2's
``modeling_internlm2.py`` (queries, keys and values by head), diffusers'
``convert_sd3_to_diffusers.py`` (`swap_scale_shift`).
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from ckpt.infer.match.sides import Link, Shape, Sides

ROTARY = "rows may be in another order for rotary positions"
BY_HEAD = "query, key and value may alternate by head"
SCALE_AND_SHIFT = "scale and shift may change places"

_PAIRWISE = re.compile(r"(^|\.)layers\.\d+\.(attention\.w[qk]|attn\.[qk]_proj)\.")
_HALVES = re.compile(r"(^|\.)layers\.\d+\.self_attn\.[qk]_proj\.")
_FIRST_FACTOR = re.compile(r"\.lora_a\.|\.lora_down\.", re.IGNORECASE)  # has the inputs' columns
_BIAS = re.compile(r"\.(attn|self_attn|attention)\.(q_proj|wq)\.bias$")
_POSITIONS = re.compile(r"(^|[._])(pos|position|positions|positional|wpe)([._]|$)")
_JOINED = re.compile(r"\b(query_key_value|wqkv)\b")
_ONE_HEAD = 128  # rows; more are the keys of several heads
_LEAST_SHARED = 4  # heads of queries, where all share one head of keys
_MODULATION = re.compile(r"\bada_?ln", re.IGNORECASE)


def with_doubts(links: Sequence[Link], sides: Sides) -> tuple[list[Link], dict[str, str]]:
    """The links, doubtful operations open, and the doubts about pairs, by source key."""
    is_rotary = _have_rotary_positions(sides)
    whys: dict[str, str] = {}  # by the module of a matrix; a bias follows its weight
    for link in links:
        if sides.proofs[sides.kind(link.lefts[0])]:  # the rows are as they were
            continue
        if len(sides.shapes[sides.kind(link.lefts[0])]) > 1:
            whys[_module(link, sides)] = _doubt(link, sides, is_rotary=is_rotary)
    judged, doubts = list[Link](), dict[str, str]()
    for link in links:
        why = whys.get(_module(link, sides), "")
        if why and not link.verb:
            doubts[sides.paths(0, link.lefts)[0]] = why
        judged.append(replace(link, margin=0.0, evidence=why) if why and link.verb else link)
    return judged, doubts


def _module(link: Link, sides: Sides) -> str:
    return sides.paths(0, link.lefts)[0].rpartition(".")[0]


def _have_rotary_positions(sides: Sides) -> bool:
    """Whether no side has a table of positions, or a bias for queries."""
    return not any(
        _POSITIONS.search(key) or _BIAS.search(key) for keys in sides.keys for key in keys
    )


def _doubt(link: Link, sides: Sides, *, is_rotary: bool) -> str:
    olds, news = sides.paths(0, link.lefts), sides.paths(1, link.rights)
    shape = sides.shapes[sides.kind(link.lefts[0])]
    if _differ(_JOINED, olds, news) and _has_heads_of_keys(shape):
        return BY_HEAD
    if link.verb:
        return ""
    (old,), (new,) = olds, news
    if is_rotary and not _FIRST_FACTOR.search(old) and _change_layout(old, new):
        return ROTARY
    if _differ(_MODULATION, olds, news) and _is_multiple(shape, 2):
        return SCALE_AND_SHIFT
    return ""


def _differ(pattern: re.Pattern[str], olds: Sequence[str], news: Sequence[str]) -> bool:
    """Whether a pattern is in the keys of one side only."""
    here, there = (any(map(pattern.search, keys)) for keys in (olds, news))
    return here != there


def _change_layout(old: str, new: str) -> bool:
    """Whether one key is of a family that rotates pairs of rows, and the other rotates halves."""
    return any(
        _PAIRWISE.search(one) and _HALVES.search(other) for one, other in ((old, new), (new, old))
    )


def _has_heads_of_keys(shape: Shape) -> bool:
    """Whether the rows of queries, keys and values have several heads of keys.

    The queries have as many rows as there are columns.
    """
    if len(shape) != 2:
        return False
    keys = (shape[0] - shape[1]) // 2
    return keys > _ONE_HEAD or keys * _LEAST_SHARED > shape[1]


def _is_multiple(shape: Shape, count: int) -> bool:
    """Whether a matrix has so many times as many rows as columns."""
    return len(shape) == 2 and shape[0] == count * shape[1]
