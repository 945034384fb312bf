"""Rewards of completions, one file each: a function `score`, which is called as docs/rewards.md says.

To add one, write `score(*, completions, <columns of the data>, <hyper-parameters>) -> list[float | None]`, with columns
as sequences that have None where a row has none. `score.each = True` has it called for one row at a time in processes
with a time limit, for what may hang; `score.one_of = ("answer", "reference")` says that it needs one of these columns.
A function `check(*, <hyper-parameters>)` raises UserError on what is wrong with them before a run starts.
"""
