"""Frozen weights in few bits: one file a format, found by its name ("nf4-dq" is `nf4_dq.py`).

To add one, write a node and `quantize(weight, *, group)` as `format.py` says; the contract in
`tests/contracts/test_formats.py` finds it. `convert.py` quantises tensors and whole trees.
"""
