"""The pages in a real Chromium: they work, nothing in them runs, and everybody can use them."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckpt.cli import main
from ckpt.ops.diff import diff
from ckpt.ops.site import site as describe
from ckpt.registry.registry import Registry
from ckpt.show.diff import diff_data
from ckpt.show.site import site_files
from tests.effort import by_effort, long_but
from tests.show.site.browser import program, started
from tests.show.site.registries import (
    HOSTILE,
    make_hostile,
    make_many,
    make_ordinary,
    make_random,
)

WIDE, NARROW = 1440, 375
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if program() is None:
        pytest.skip("chromium is not installed")
    with started() as found:
        yield found


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a page; in the end, no page has written to the console, and none is wider than it."""
    problems: list[str] = []
    context = browser.new_context()

    def opened(file: Path, mark: str = "", *, width: int = WIDE, scheme: str = "light") -> Any:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda message: problems.append(f"{file.name}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"{file.name}: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"{file.name}: a dialog"))
        page.on(
            "request",
            lambda request: problems.append(request.url) if is_foreign(request.url) else None,
        )
        page.goto(file.as_uri() + mark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, file
        return page

    yield opened
    context.close()
    assert problems == []


def is_foreign(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def written(folder: Path) -> Path:
    out = folder / "site"
    with pytest.raises(SystemExit) as done:
        main(["site", "-o", str(out), "--registry", str(folder), "-q"])
    assert done.value.code == 0
    return out


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordinary") / "team"
    make_ordinary(folder)
    return written(folder)


def shown(page: Any) -> list[str]:
    """The versions in the table that are not hidden, in their order."""
    names: list[str] = page.eval_on_selector_all(
        "#versions tbody tr:not([hidden]) th a", "found => found.map((each) => each.textContent)"
    )
    return names


@pytest.mark.long
def test_versions_are_searched_filtered_and_sorted(open_page: Open, site: Path) -> None:
    page = open_page(site / "index.html")
    assert len(shown(page)) == 10
    page.keyboard.press("/")
    page.keyboard.type("net FIRST")
    assert shown(page) == ["net:v1"]
    assert page.inner_text(".tools output") == "1 of 10"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.get_by_role("combobox", name="Model").select_option("other")
    assert shown(page) == ["other:v1"]
    page.get_by_role("combobox", name="Model").select_option("")
    page.get_by_role("combobox", name="Alias or tag").select_option("prod")
    assert shown(page) == ["net:v3"]
    page.get_by_role("combobox", name="Alias or tag").select_option("")
    for _ in range(2):
        page.get_by_role("button", name="accuracy").click()
    order = shown(page)
    assert ({*order[:2]}, order[2]) == ({"net:v1", "net:v2"}, "net:v3")
    assert {*order[3:5]} == {"net:v8", "net:v9"}, "then those without the metric"
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("accuracy")
    page.get_by_role("button", name="version", exact=True).focus()
    page.keyboard.press("Enter")
    assert shown(page)[-2:] == ["net:v9", "other:v1"]


@pytest.mark.long
def test_tensors_fold_and_are_filtered(open_page: Open, site: Path) -> None:
    page = open_page(site / "models" / "net--2" / "v1.html")
    assert page.locator("#tree summary").first.inner_text().startswith("layers.{0..2}")
    visible = page.locator("#tree [data-text]:visible")
    assert visible.count() == 4
    page.get_by_label("Filter tensors").fill("layers.1 q")
    assert visible.all_inner_texts() == ["weight 4 4 · float32 · 64 B"]
    page.get_by_label("Filter tensors").fill("")
    page.locator("#tree").locator("xpath=preceding-sibling::div[1]//button").click()
    assert visible.count() == 0


@pytest.mark.long
def test_theme_follows_the_system_and_can_be_chosen(open_page: Open, site: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page(site / "index.html")
    dark = open_page(site / "index.html", scheme="dark")
    assert light.evaluate(background) != dark.evaluate(background)
    colours = dark.evaluate(background), light.evaluate(background)
    light.get_by_role("button", name="Dark theme").click()
    assert light.evaluate(background) == colours[0]
    light.reload()
    assert light.evaluate(background) == colours[0], "it is remembered"
    light.get_by_role("button", name="Light theme").click()
    assert light.evaluate(background) == colours[1]


@pytest.mark.long
def test_two_versions_are_chosen_and_compared(open_page: Open, site: Path) -> None:
    page = open_page(site / "models" / "net--2" / "compare.html", "#v1..v2")
    page.wait_for_selector(".verdict")
    assert page.inner_text(".verdict") == "differs: 6 renamed, 2 the same"
    page.get_by_role("combobox", name="To").select_option("v1")
    page.get_by_text("no difference: 8 the same").wait_for()
    assert page.url.endswith("#v1..v1")
    page.get_by_role("combobox", name="To").select_option("v3")
    page.get_by_role("button", name="Swap").click()
    page.get_by_text("differs: 1 changed, 7 the same").wait_for()
    assert "-0.05" in page.inner_text("#compared")


@pytest.mark.long
def test_keyboard_reaches_everything_and_focus_is_seen(open_page: Open, site: Path) -> None:
    page = open_page(site / "index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached, unseen = set(), []
    script = """() => {
        const e = document.activeElement;
        return [e.tagName, e.href ?? e.textContent, getComputedStyle(e).outlineStyle];
    }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, text, outline = page.evaluate(script)
        reached.add((tag, text))
        unseen += [text] if (tag, outline) not in (("BODY", "none"), (tag, "solid")) else []
    assert unseen == []
    tags = {tag for tag, _ in reached}
    assert {"A", "BUTTON", "INPUT", "SELECT", "DIV"} <= tags
    links = page.eval_on_selector_all("main a", "found => found.map((each) => each.href)")
    assert {*links} <= {text for _, text in reached}


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


@pytest.mark.long
@pytest.mark.parametrize("scheme", long_but(["light"], ["light", "dark"]))
def test_axe_finds_no_violation(open_page: Open, site: Path, tmp_path: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    net = site / "models" / "net--2"
    files = [site / "index.html", *(net / f"{name}.html" for name in ("index", "v3", "v6"))]
    alone = tmp_path / "diff.html"
    run_diff(site.parent, "net:v3", "net:v6", alone)
    pages = [*((file, "") for file in files), (net / "compare.html", "#v1..v6"), (alone, "")]
    for file, mark in pages[:: by_effort(3, 1, 1)]:
        page = open_page(file, mark, scheme=scheme, width=NARROW if scheme == "dark" else WIDE)
        if mark:
            page.wait_for_selector(".verdict")
        found = Axe().run(page, options={"preload": False})
        names = [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]]
        assert names == [], file


def run_diff(folder: Path, before: str, after: str, out: Path) -> None:
    words = ["diff", before, after, "--records", "--format", "html", "-o", str(out), "--force"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--registry", str(folder)])
    assert done.value.code == 0


@pytest.mark.long
def test_page_of_a_diff_filters_and_fits_400_pixels(
    open_page: Open, site: Path, tmp_path: Path
) -> None:
    run_diff(site.parent, "net:v1", "net:v2", tmp_path / "diff.html")
    page = open_page(tmp_path / "diff.html", width=400)
    assert page.inner_text(".verdict") == "differs: 6 renamed, 2 the same"
    page.get_by_label("Filter keys").fill("blocks.1")
    assert page.locator("#changes [data-text]:visible").count() == 2
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_fault_43_nothing_in_a_page_runs(open_page: Open, tmp_path: Path) -> None:
    make_hostile(tmp_path / "team")
    site = written(tmp_path / "team")
    run_diff(tmp_path / "team", "net:v1", "net:v2", tmp_path / "diff.html")
    said = ""
    for number, file in enumerate([*pages_of(site), tmp_path / "diff.html"]):
        for width in by_effort((WIDE, NARROW)[number % 2 :][:1], (WIDE, NARROW), (WIDE, NARROW)):
            page = open_page(file, "#v1..v2" if file.name == "compare.html" else "", width=width)
            if file.name == "compare.html":
                page.wait_for_selector(".verdict")
            page.evaluate(
                "for (const each of document.querySelectorAll('details')) each.open = true"
            )
            assert page.evaluate("window.hit") is None, file
            scripts = (
                "document.querySelectorAll('script:not([src]), img, [onerror], [onload], svg svg')"
            )
            alone = 1 if file.name == "diff.html" else 0
            assert page.evaluate(f"{scripts}.length") == alone, file
            links = page.eval_on_selector_all("a", "found => found.map((each) => each.protocol)")
            assert {*links} <= {"file:"}, file
            said += page.inner_text("body")
            page.close()
    for text in HOSTILE:
        assert said.count(text) > by_effort(5, 10, 10), text


@pytest.mark.long
def test_fault_43_the_policy_alone_would_stop_a_script(browser: Any, site: Path) -> None:
    """What a template must not let through would not run either."""
    page = browser.new_page()
    for file in (site / "index.html", site / "models" / "net--2" / "v1.html"):
        evil = file.read_text().replace("</main>", f"{HOSTILE[0]}{HOSTILE[1]}{HOSTILE[4]}</main>")
        (file.parent / "evil.html").write_text(evil)
        page.goto((file.parent / "evil.html").as_uri())
        (file.parent / "evil.html").unlink()
        assert page.evaluate("window.hit") is None
    page.close()


@pytest.fixture(params=long_but(["ordinary", 0], ["ordinary", *range(4)]))
def registry(request: pytest.FixtureRequest, tmp_path: Path, site: Path) -> Registry:
    if request.param == "ordinary":
        return Registry(site.parent)
    make_random(tmp_path / "team", request.param, 12)
    written(tmp_path / "team")
    return Registry(tmp_path / "team")


@pytest.mark.long
def test_script_compares_as_the_command_does(open_page: Open, registry: Registry) -> None:
    folder = next(file.parent for file in registry.folder.glob("site/models/*/v2.html"))
    page = open_page(folder / "compare.html")
    versions = [each.label for each in registry.versions("net")]
    wanted, pairs = {}, list(itertools.product(versions, versions))
    for a, b in pairs:
        found = diff(f"net:{a}", f"net:{b}", registry=registry)
        wanted[f"{a} {b}"] = compared(json.loads(json.dumps(diff_data(found))))
    script = """async (pairs) => Object.fromEntries(await Promise.all(pairs.map(async ([a, b]) =>
        [`${a} ${b}`, compare(await version(a), await version(b))])))"""
    found = page.evaluate(script, [[a, b] for a, b in pairs])
    assert {pair: of_script(each) for pair, each in found.items()} == wanted
    kinds = {name for each in wanted.values() for name, rows in each.items() if rows}
    assert kinds >= {"removed", "added", "renamed", "retyped", "changed", "same", "records"}


def compared(data: dict[str, Any]) -> dict[str, Any]:
    """The document of `ckpt diff --json`, as far as the script tells the same."""
    return {
        **{name: [each["key"] for each in data[name]] for name in ("removed", "added")},
        "renamed": [[each["old"], each["new"]] for each in data["renamed"]],
        "reshaped": [each["key"] for each in data["reshaped"]],
        "retyped": [each["key"] for each in data["retyped"]],
        **{name: data[name] for name in ("changed", "same", "swapped")},
        "unread": data["not_compared"],
        **{name: [[e["key"], e["other"]] for e in data[name]] for name in ("tied", "untied")},
        "records": [[each["name"], each["before"], each["after"]] for each in data["records"]],
        "files": [each["name"] for each in data["side_files"]],
    }


def of_script(data: dict[str, Any]) -> dict[str, Any]:
    pairs = ("reshaped", "retyped", "changed", "same", "unread")
    return {
        **{name: [each[0] for each in data[name]] for name in ("removed", "added", "files")},
        "renamed": [[a[0], b[0]] for a, b in data["renamed"]],
        **{name: [a[0] for a, _ in data[name]] for name in pairs},
        **{name: data[name] for name in ("swapped", "tied", "untied", "records")},
    }


@pytest.mark.long
def test_a_thousand_versions_are_there_at_once(
    open_page: Open, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    make_many(tmp_path / "team", 1000)
    for name, text in itertools.islice(
        site_files(describe(registry=Registry(tmp_path / "team"))), 3
    ):
        (tmp_path / name).write_text(text)
    assert (tmp_path / "index.html").stat().st_size < 2_000_000
    assert (tmp_path / "script.js").stat().st_size < 17_000
    page = open_page(tmp_path / "index.html")
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    record_property("figure", f"a page of 1,000 versions is ready after {ready:.0f} ms")
    assert len(shown(page)) == 1000
    page.get_by_role("button", name="size").click()
    page.get_by_role("button", name="version", exact=True).click()
    assert shown(page)[:2] == ["net:v1", "net:v2"]
    page.get_by_label("Search versions").fill("v1000")
    assert shown(page) == ["net:v1000"]
    assert page.get_by_role("link", name="net:v1000").is_visible()
    page.get_by_label("Search versions").fill("")
    page.wait_for_selector("tr.far", state="detached")
    assert page.evaluate(DRAWN) == 1000


DRAWN = "[...document.querySelectorAll('#versions tbody tr')].filter((e) => e.offsetHeight).length"


@pytest.mark.long
@pytest.mark.parametrize("scripts", long_but([True], [True, False]))
def test_rows_far_down_come_last_and_never_without_a_script(
    browser: Any, tmp_path: Path, scripts: bool
) -> None:
    make_many(tmp_path / "team", 150)
    files = site_files(describe(registry=Registry(tmp_path / "team")))
    for name, text in itertools.islice(files, 3):
        if name == "script.js":  # a browser that is never idle
            text = text.replace("window.requestIdleCallback ??", "() => {}; void")
        (tmp_path / name).write_text(text)
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_role("link", name="net:v150").wait_for()
    last = page.get_by_role("link", name="net:v1", exact=True)
    assert last.is_visible() is not scripts
    page.emulate_media(media="print")
    assert last.is_visible()
    page.emulate_media(media="screen")
    if scripts:
        page.get_by_role("button", name="version", exact=True).click()
        assert last.is_visible()
        assert page.evaluate(DRAWN) == 100
    context.close()
