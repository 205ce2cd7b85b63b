"""Tables that answer as a training would: a configuration's value with noise, and its cost.

A configuration is a row of numbers, one a decision: the index of a choice, or of a real number its
position in [0, 1]. Tables are made from a seed, so that each seed of a comparison has a table of
its own. What is known of a table without noise (its best value, its median) makes values of
different tables comparable: 0 is the median of random configurations, 100 the best one found.
"""

from search_tables.families import DEVELOPMENT, HELD_OUT, family
from search_tables.table import Decisions, SearchTable

__all__ = ["DEVELOPMENT", "HELD_OUT", "Decisions", "SearchTable", "family"]
