"""Later words: notes and measurements that are added to a version, whose manifest never changes.

Laws: nothing is overwritten; adding again what a version has already changes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ckpt.errors import UsageError
from ckpt.io.documents.typed_json import expect
from ckpt.registry.events import Event, about
from ckpt.registry.history.newest import Newest
from ckpt.registry.index import Index, Model
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version

MOST_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Words:
    """What was added to a version.

    Attributes:
        version: The version, with its newest metrics.
        text: The note; empty if the version had it already.
        metrics: The values that it did not have.
        before: Its values before, of these metrics.
    """

    version: Version
    text: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)


def add_words(
    registry: Registry,
    ref: str,
    *,
    text: str = "",
    metrics: Mapping[str, float] | None = None,
    why: str = "",
) -> Words:
    """Add a note and measurements to the version that `ref` names, as one write.

    Args:
        registry: Its registry.
        ref: The version.
        text: The note.
        metrics: The values, by name.
        why: How or why it was measured.

    Raises:
        RefError: There is no such version.
        UsageError: A text is too long, or a value is not a number.
    """
    metrics = _expect_numbers(metrics or {})
    done: list[Words] = []

    def said(index: Index) -> Model:
        found = index.find(ref)
        model = index.model(found.model)
        version = Newest(model.log).of(found)
        known = {each.text for each in about(model.log, version.manifests) if each.did == "note"}
        note = "" if text in {version.message, *known} else text
        new = {k: value for k, value in metrics.items() if version.metrics.get(k) != value}
        if drafts := tuple(_drafts(version, note, new, why)):
            model = replace(model, log=(*model.log, *drafts))
        before = {name: version.metrics[name] for name in new if name in version.metrics}
        version = replace(version, metrics={**version.metrics, **new})
        done.append(Words(version, note, new, before))
        return model

    def what() -> str:
        values = [f"{name}={value:g}" for name, value in done[-1].metrics.items()]
        did = [name for name, is_new in (("note", done[-1].text), ("metric", values)) if is_new]
        return " ".join([" and ".join(did), done[-1].version.ref, *values])

    registry.change(said, what)
    return done[-1]


def expect_short(text: str) -> None:
    """Refuse a text that everybody who reads the history would have to carry.

    Raises:
        UsageError: It is longer than `MOST_CHARACTERS`.
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"a text of {len(text):,} characters, over the limit of {MOST_CHARACTERS:,}",
            hint="keep it in a file, and note where that is",
        )


def _drafts(version: Version, note: str, metrics: Mapping[str, float], why: str) -> Iterator[Event]:
    for text in (note, why):
        expect_short(text)
    draft = Event(did="note", version=version.label, manifest=version.manifest, text=note)
    if note:
        yield draft
    if metrics:
        yield replace(draft, did="metric", text=why, metrics=metrics)


def _expect_numbers(metrics: Mapping[str, float]) -> Mapping[str, float]:
    try:
        expect(dict(metrics), dict[str, float], name="metrics")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return metrics
