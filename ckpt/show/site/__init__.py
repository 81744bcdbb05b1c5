"""A registry as pages: the index, and for each model its versions, lineage and comparisons.

Every page can be read without a script, from a disk as from a server. The data of two versions that
a page compares are scripts too, since pages of a disk may read nothing else.
"""

from collections.abc import Iterator
from typing import Any

from ckpt import __version__
from ckpt.ops.site import Described, Origin, Site
from ckpt.ops.site.folder import WrittenSite
from ckpt.show.alias import moves_table
from ckpt.show.look.fields import fields
from ckpt.show.look.words import count, printable, size
from ckpt.show.pages import ASSETS, asset, site_page
from ckpt.show.site.compared import version_script
from ckpt.show.site.lineage import family, graph
from ckpt.show.site.links import Links
from ckpt.show.site.version import version_values
from ckpt.show.site.versions import columns_of, rows_of


def site_files(site: Site) -> Iterator[tuple[str, str]]:
    """The name and text of every file, one at a time."""
    yield from ((name, asset(name)) for name in ASSETS)
    links = Links(site.index.models)
    yield "index.html", _index_page(site, links)
    for name in site.index.models:
        yield from _model_pages(name, site, links)
    for found in site.described:
        yield from _version_files(found, site, links)


def _index_page(site: Site, links: Links) -> str:
    origins = [origin for origin in site.origins.values() if not origin.removed]
    columns = columns_of(origins)
    labels = {
        name for model in site.index.models.values() for name in (*model.aliases, *model.tags)
    }
    models = [_card(name, origins, site, links) for name in sorted(site.index.present)]
    return _page(
        "index.html",
        title=site.name,
        crumbs=[(site.name, "")],
        root="",
        name=site.name,
        models=models,
        labels=sorted(labels),
        columns=columns,
        rows=rows_of(origins, columns, site.index, links, root="", with_model=True),
    )


def _card(name: str, origins: list[Origin], site: Site, links: Links) -> dict[str, Any]:
    model = site.index.models[name]
    times = [version.created for version in model.versions.values()]
    return {
        "name": name,
        "link": links.model(name),
        "versions": len(model.versions),
        "when": max(times, default="")[:10],
        "aliases": _aliases(name, site, links, root=""),
    }


def _aliases(name: str, site: Site, links: Links, *, root: str) -> list[tuple[str, str, str]]:
    model = site.index.models[name]
    return [
        (alias, f"v{number}", root + links.version(f"{name}:v{number}"))
        for alias, number in sorted(model.aliases.items())
    ]


def _model_pages(name: str, site: Site, links: Links) -> Iterator[tuple[str, str]]:
    root, folder = "../../", links.folder(name)
    origins = [o for o in site.origins.values() if o.version.model == name and not o.removed]
    family_ = family([origin.version.ref for origin in origins], site.origins)
    columns = columns_of(origins)
    moves = [moved for moved in site.aliases.moves if moved.model == name]
    home = (site.name, f"{root}index.html")
    yield (
        f"{folder}/index.html",
        _page(
            "model.html",
            title=f"{name} · {site.name}",
            crumbs=[home, (name, "")],
            root=root,
            name=name,
            columns=columns,
            rows=rows_of(origins, columns, site.index, links, root=root, with_model=False),
            aliases=_aliases(name, site, links, root=root),
            graph=graph(family_, site, links, root=root),
            moves=moves_table(moves),
        ),
    )
    options = [
        {"label": v.label, "text": ", ".join([v.label, *site.index.models[name].aliases_of(v)])}
        for v in (origin.version for origin in origins)
    ]
    yield (
        f"{folder}/compare.html",
        _page(
            "compare.html",
            title=f"Compare · {name}",
            crumbs=[home, (name, "index.html"), ("compare", "")],
            root=root,
            name=name,
            options=options,
        ),
    )


def _version_files(found: Described, site: Site, links: Links) -> Iterator[tuple[str, str]]:
    version = found.origin.version
    folder = links.folder(version.model)
    crumbs = [(site.name, "../../index.html"), (version.model, "index.html"), (version.label, "")]
    yield (
        f"{folder}/{version.label}.html",
        _page(
            "version.html",
            title=f"{version.ref} · {site.name}",
            crumbs=crumbs,
            root="../../",
            **version_values(found, site, links),
        ),
    )
    yield f"{folder}/{version.label}.js", version_script(found)


def _page(template: str, /, **values: Any) -> str:
    return site_page(template, made_by=__version__, **values)


def site_text(written: WrittenSite, site: Site) -> str:
    """Where the site was written, and what it holds."""
    versions = sum(not origin.removed for origin in site.origins.values())
    return (
        f"wrote {printable(str(written.path))}/  {count(versions, 'version')}, "
        f"{count(written.files, 'file')}, {size(written.size)}"
    )


def site_data(written: WrittenSite, site: Site) -> dict[str, Any]:
    """The same for JSON."""
    versions = sum(not origin.removed for origin in site.origins.values())
    return {**fields(written, "path", "start", "files", "size"), "versions": versions}
