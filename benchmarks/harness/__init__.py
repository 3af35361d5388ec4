"""What the benchmarks share.

launch: starts the ranks.  world: the ranks' groups.  case: what is measured.  measure: how.
bound: what memory allows.  table: what is printed.
"""
