"""Trainable deltas over frozen weights: one file a type.

To add a type, write a node that subclasses `flax.struct.PyTreeNode` and `adapter.Adapter`, and a function `init_one`
whose hyper-parameters stand in the config's `adapter`; the config and the contract tests find it. `attach.py` zips
adapters to weights, `init.py` decides which weights get one, `merge.py` folds them in; `tables.py` has what trains of
embedding and head beside them.
"""
