"""Trainable deltas over frozen weights: one file a type.

To add a type, write a node with `forward(x, y, frozen, key)`, `merge(dense)` and a static `dropout` (0.0 for none), and
a function `init_one` whose hyper-parameters stand in the config's `adapter`; the config and the contract tests find it.
`attach.py` zips adapters to weights, `init.py` decides which weights get one.
"""
