"""Budgets: what must hold of a suite's results, and whether it does. Imports no torch, except to measure again.

expressions.py   `ap(sparse-*) >= baseline - 0.3` as a small tree
budgets.py       where budgets are written, and to which cells they apply
baselines.py     figures of earlier results, kept in git, by hardware
judge.py         holds, broken, unclear, ...: every budget of a check judged together
outputs.py       text, JSON, JUnit XML
github.py        annotations and the step summary
"""
