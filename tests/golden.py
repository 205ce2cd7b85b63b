"""Hashes of what tfnas computes, to show that a move of code changed nothing.

    python tests/golden.py --compare OTHER_CHECKOUT

runs the script of each checkout in that checkout and prints the entries that differ; the exit code
is 1 where any does. Hashes are of this machine and its packages, so none is kept anywhere.
"""

import sys

from golden.command import main

if __name__ == "__main__":
    sys.exit(main())
