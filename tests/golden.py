"""Hashes of what tfnas computes, to show that a move of code changed nothing.

    python tests/golden.py --compare OTHER_CHECKOUT

runs the script of each checkout in that checkout and prints the entries that differ; the exit code
is 1 where any does. In place of the other checkout it takes what `--write` wrote there. Hashes are
of this machine and its packages: none is kept in the repository.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # this checkout's tfnas

from golden.command import main

if __name__ == "__main__":
    sys.exit(main())
