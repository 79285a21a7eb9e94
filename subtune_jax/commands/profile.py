"""`subtune profile`: SubTuning's fine-tuning profile."""

from collections.abc import Sequence

from subtune_jax.commands import cli
from subtune_jax.subtuning import block_profile, proxies

ABOUT = "how good is it to train each block alone?"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parse = cli.parser("profile", ABOUT)
    known = ", ".join(proxies.PROXIES)
    parse.add_argument("--proxy", metavar="NAME,NAME", help=f"all, or some of {known}")
    parse.add_argument("--proxy-only", action="store_true", help="train nothing")
    return cli.run(
        parse,
        lambda settings, given: block_profile.run(
            settings, given.workdir, given.proxy, given.proxy_only
        ),
        argv,
    )
