"""Measure the accuracy of a recipe over several seeds, in fp32 and in bf16.

    CKPT_DATA=/path/to/data python benchmarks/seeds.py [--recipe NAME|FILE] [--seeds 1,2,3]
                                                       [--precisions fp32,bf16] [--epochs N]
                                                       [--quick]

Each run is whole, on MNIST: trained, written, read back, and scored once on the test images in
fp32. The mean and the standard deviation (of the sample) are printed for each precision.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from images import Images, find_images
from quick import parse_options
from tabulate import tabulate

from ckpt.train.recipes.recipe import Recipe
from ckpt.train.recipes.recipe_file import read_recipe
from ckpt.train.run import train
from ckpt.train.watch.events import Trained


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    arguments = parse_options(parser, seeds="1,2", epochs=1)
    with find_images(quick=arguments.quick) as images:
        print_scores(arguments, images)


def print_scores(arguments: argparse.Namespace, images: Images) -> None:
    """A row for each seed and precision."""
    settings = {
        **read_recipe(arguments.recipe), "dataset": images.name, "data_dir": images.folder,
    }  # fmt: skip
    if arguments.epochs:
        settings["epochs"] = arguments.epochs
    rows: list[list[object]] = []
    means: dict[str, float] = {}
    for precision in arguments.precisions.split(","):
        found = []
        for seed in map(int, arguments.seeds.split(",")):
            trained = trained_by(Recipe(**{**settings, "precision": precision, "seed": seed}))
            found.append(100 * trained.test_accuracy)
            rows.append([precision, seed, f"{found[-1]:.2f}", f"{trained.test_loss:.4f}",
                         f"{trained.seconds:.0f}"])  # fmt: skip
            print(*rows[-1], file=sys.stderr, flush=True)
        means[precision] = statistics.mean(found)
        deviation = f"{statistics.stdev(found):.3f}" if len(found) > 1 else ""
        rows.append([precision, "mean", f"{means[precision]:.3f}", "", ""])
        rows.append([precision, "deviation", deviation, "", ""])
    print(tabulate(rows, ["precision", "seed", "test accuracy %", "test loss", "seconds"]))
    if len(means) > 1:
        gap = max(means.values()) - min(means.values())
        print(f"\nthe means differ by {gap:.3f} points; the target is at most 0.1")
    print(f"recipe {arguments.recipe}, {Recipe(**settings).epochs} epochs; target: at least 99.0 %")


def trained_by(recipe: Recipe) -> Trained:
    """A whole run in a scratch folder."""
    with tempfile.TemporaryDirectory() as folder:
        trained = train(recipe, Path(folder) / "w.pt")
    assert trained is not None, "one process has the result"
    return trained


if __name__ == "__main__":
    main()
