"""`python -m shift_jax.commands` is `shift-jax`."""

import sys

from shift_jax.commands.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
