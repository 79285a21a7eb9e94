"""`python -m subtune_jax.delta`."""

import sys

from subtune_jax.delta import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv[1:]))
