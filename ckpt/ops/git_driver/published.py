"""The indexes that others may have: those of the remote branches, as this clone knows them."""

from pathlib import Path

from ckpt.errors import UsageError
from ckpt.io.git import blobs, git
from ckpt.registry.index import Index
from ckpt.registry.index_file import read_index
from ckpt.registry.places import FILE_NAME


def published_indexes(folder: Path) -> list[list[Index]]:
    """The indexes of remotes' default branches, whose numbers hold; then those of all others.

    Raises:
        IndexDamageError: One of them cannot be read.
    """
    try:
        refs = git(folder, "for-each-ref", "--format=%(refname) %(symref)", "refs/remotes")
    except UsageError:
        return []  # not a repository
    lines = [line.split(" ") for line in refs.decode("utf-8", "surrogateescape").splitlines()]
    default = [name for name, target in lines if target]
    others = [name for name, target in lines if not target]
    return [_indexes(folder, default), _indexes(folder, [*others, "FETCH_HEAD"])]


def _indexes(folder: Path, refs: list[str]) -> list[Index]:
    """The different ones; many branches have the same."""
    documents = {
        document: name for name, document in blobs(folder, (f"{ref}:./{FILE_NAME}" for ref in refs))
    }
    return [read_index(document, name=name) for document, name in documents.items()]
