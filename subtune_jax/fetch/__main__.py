"""`python -m subtune_jax.fetch`."""

import sys

from subtune_jax import fetch

if __name__ == "__main__":
    sys.exit(fetch.main(sys.argv[1:]))
