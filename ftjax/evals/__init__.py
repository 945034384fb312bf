"""State -> numbers: how likely held-out text is, and how often answers are right.

To add a check of answers, write `f(row, prediction) -> score in [0, 1]` and name it in `config.eval.check`.
"""
