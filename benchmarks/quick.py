"""The flag `--quick` of every benchmark: all that it does, in its smallest sizes."""

from argparse import ArgumentParser, Namespace


def parse_options(parser: ArgumentParser, **smallest: object) -> Namespace:
    """Parse the command line; with ``--quick``, `smallest` replaces the defaults.

    Args:
        parser: Gets the flag.
        smallest: By option name; values on the command line override them.
    """
    sizes = " ".join(f"--{name} {value}" for name, value in smallest.items())
    parser.add_argument(
        "--quick", action="store_true", help=f"see in seconds that it works: {sizes}"
    )
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(**smallest)
        options = parser.parse_args()
    return options
