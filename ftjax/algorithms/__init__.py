"""Batch + model -> loss, one file an algorithm.

To add one, write a file whose `make(...)` returns an `algorithm.Algorithm`, a section in `configs/defaults.py`, and a
smoke config; the end-to-end tests run it.
"""
