"""Trainable deltas over frozen weights: one file a type.

To add a type, write a node with `forward(x, y, frozen, key)` and `merge(dense)` and a function `init_one`; the
contract tests find it. `attach.py` zips adapters to weights, `init.py` decides which weights get one.
"""
