"""Packages of the extra `eval`, imported when they are asked."""

import importlib
from types import ModuleType

from ftjax.errors import UserError


def library(name: str) -> ModuleType:
    """Returns a module of a package that the extra `eval` installs; where it is missing, the UserError says so."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0].replace("_", "-")
        raise UserError(f"this needs the package {package}; install it: pip install 'ftjax[eval]'") from None
