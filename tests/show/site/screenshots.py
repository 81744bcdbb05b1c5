"""Pictures of the pages, of a registry that is trained for it: `make screenshots`.

python -m tests.show.site.screenshots [FOLDER]    (default: docs/pages)
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shlex import split

from tests.show.site.browser import started

ROOT = Path(__file__).parents[3]
CKPT = str(Path(sys.executable).with_name("ckpt"))
TRAIN = "train --register --dataset digits --precision fp32 -q"
COMMANDS = f"""
{TRAIN} --epochs 4 --seed 1 --holdout 0.2 --name digits -m "first try"
{TRAIN} --epochs 8 --seed 1 --holdout 0.2 --name digits -m "twice the epochs"
alias digits@prod digits:v1 -m "good enough to start with"
rename digits:v2 --rule "conv->embed" --check ckpt.models.mnist_embed:Net
{TRAIN} --epochs 8 --seed 2 --holdout 0.2 --lr 0.5 --name digits -m "half the learning rate"
alias digits@prod digits:v3 -m "better on the hold-out"
alias digits@candidate digits:v4
tag digits:v2 baseline
note digits:v4 -m "confuses 3 and 8 more often"
{TRAIN} --epochs 2 --seed 3 --name digits-small -m "a quick one"
site -o site
"""
PICTURES = {
    "index": ("index.html", 1440, "light"),
    "version": ("models/digits/v3.html", 1440, "light"),
    "compare": ("models/digits/compare.html#v1..v3", 1440, "dark"),
    "narrow": ("models/digits/v3.html", 375, "dark"),
}


def main() -> None:
    """Train, write the site, and take the pictures."""
    out = Path(sys.argv[1] if sys.argv[1:] else ROOT / "docs" / "pages")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "team"
        folder.mkdir()
        settings = {**os.environ, "CKPT_AUTHOR": "Ann <ann@example.org>"}
        for command in COMMANDS.strip().splitlines():
            subprocess.run([CKPT, *split(command)], cwd=folder, env=settings, check=True)
        take(folder / "site", out)


def take(site: Path, out: Path) -> None:
    """Take the pictures of a site."""
    with started() as browser:
        for name, (path, width, scheme) in PICTURES.items():
            size = {"width": width, "height": 900 if width > 1000 else 800}
            page = browser.new_page(viewport=size, color_scheme=scheme)
            file, mark, part = path.partition("#")
            page.goto(f"{(site / file).resolve().as_uri()}{mark}{part}")
            page.wait_for_selector("#compared .verdict" if mark else "main")
            page.screenshot(path=out / f"{name}.png")


if __name__ == "__main__":
    main()
