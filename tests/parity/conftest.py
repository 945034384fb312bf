"""Parity tests run where the extra `parity` is installed; elsewhere they are not even collected."""

import importlib.util

if all(importlib.util.find_spec(name) for name in ("torch", "peft")):
    import peft  # noqa: F401  here, not in the tests, because imports of PyTorch packages warn and warnings are errors
else:
    collect_ignore_glob = ["test_*.py"]
