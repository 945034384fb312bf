"""What a run leaves behind: its folder, its numbers, its plots and its card.

To add a place where numbers go, write one file with a class that has `write`, `text` and `close` (see `writers.Writer`)
and name it in `writers.make`. Nothing here knows a model; only `weights_and_biases.py` knows wandb.
"""
