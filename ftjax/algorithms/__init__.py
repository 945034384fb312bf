"""Batch + model -> loss, one file an algorithm.

To add one, write a file whose `make(init, config)` returns an `algorithm.Algorithm`, a function in
`configs/defaults.py` with its settings, and a config in `configs/smoke/`, which the tests run.
"""
