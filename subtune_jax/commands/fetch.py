"""`subtune fetch`: real weights and data into the cache.

The last line on stdout is the folder of the last asset named.
"""

import argparse
import sys
from collections.abc import Sequence

from subtune_jax import fetch
from subtune_jax.core.registry import near
from subtune_jax.fetch import assets
from subtune_jax.fetch.assets import Asset

ABOUT = "real weights and data into the cache"


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches the named assets and prints their folders; the exit code."""
    parse = argparse.ArgumentParser(
        prog="subtune fetch", description=ABOUT, allow_abbrev=False
    )
    parse.add_argument("names", nargs="*", metavar="NAME", help="of an asset")
    parse.add_argument("--list", action="store_true", help="show all assets")
    given = parse.parse_args(argv)
    if given.list:
        print("\n".join(_line(name, asset) for name, asset in assets.ASSETS.items()))
        return 0
    try:
        if not given.names:
            raise ValueError(f"no NAME given; {near('', assets.ASSETS)}")
        for name in given.names:
            fetch.cached(name)  # a typo is told before the first download
        for name in given.names:
            print(fetch.path(name), flush=True)
    except (ValueError, OSError) as error:
        print(f"subtune fetch: {error}", file=sys.stderr)
        return 2
    return 0


def _line(name: str, asset: Asset) -> str:
    here = "here" if fetch.cached(name) else f"{asset.megabytes} MB"
    return f"{name:20}{here:>7}  {asset.what}; licence {asset.licence}"
