"""`python -m loraone_theory` is the `loraone` command."""

import sys

from loraone_theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
