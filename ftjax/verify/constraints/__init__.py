"""The 25 instructions of IFEval that a program can check (Zhou et al. 2023, table 1), one file a group.

`keywords:existence` of the data is the function `existence` of `keywords.py`: the text first, then what the data's
`kwargs` hold, by name. A new one is a function in one of these files, or a file.
"""
