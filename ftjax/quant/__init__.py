"""Frozen weights in few bits: one file a format. To add one, read the contract in `format.py`."""
