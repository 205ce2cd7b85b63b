"""What tfnas computes, as hashes: a move of code changes none of them.

`tests/golden.py` is the command. :mod:`golden.names` alone imports tfnas and uses the words that
a move may change; the other modules use what it offers, and name their entries in words of
their own. So the same entries are there on both sides of a move, with two files of names.
"""
