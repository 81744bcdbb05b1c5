"""Pictures of the pages, of a registry that is trained for it: `make screenshots`.

python -m tests.pages.screenshots [FOLDER]    (default: docs/pages)
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from shlex import split

from tests.pages.browser import started

ROOT = Path(__file__).parent.parent.parent
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
        for command in COMMANDS.strip().splitlines():
            subprocess.run([CKPT, *split(command)], cwd=folder, check=True)
        with started() as browser:
            for name, (path, width, scheme) in PICTURES.items():
                page = browser.new_page(
                    viewport={"width": width, "height": 900},
                    color_scheme=scheme,
                )
                start = folder / "site" / path.partition("#")[0]
                page.goto(start.as_uri() + path[len(path.partition("#")[0]) :])
                page.wait_for_timeout(300)
                page.screenshot(path=out / f"{name}.png")


if __name__ == "__main__":
    main()
