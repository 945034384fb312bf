"""Names in a config -> objects. A name is a module and an attribute, so grep and go-to-definition work.

`lookup("ftjax.losses", "preference.dpo")` is `ftjax.losses.preference.dpo`; `"my_pkg.losses:mine"` reaches a user's own
code.
"""

import ast
import difflib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ftjax import errors


def lookup(package: str, name: str) -> Any:
    """Returns what `name` stands for: `module.attribute` below `package`, or `any.module:attribute` anywhere.

    A missing dependency of the module is raised as it is: it is not a typo. A wrong name is a UserError that says
    what is near and what is known.
    """
    if ":" in name:
        return _outside(name)
    path, _, attribute = name.rpartition(".")
    if path in modules(package) and attribute in _public(f"{package}.{path}"):
        return getattr(importlib.import_module(f"{package}.{path}"), attribute)
    raise errors.UserError(f"{package} has no {name!r}.{suggestion(name, catalogue(package))}")


def module(package: str, name: str) -> Any:
    """Returns the module `package.name`, or the user's own `any.module` when `name` starts with a colon."""
    if name.startswith(":"):
        return _import(name[1:], name)
    known = modules(package)
    if name not in known:
        raise errors.UserError(f"{package} has no module {name!r}.{suggestion(name, known)}")
    return importlib.import_module(f"{package}.{name}")


def catalogue(package: str) -> list[str]:
    """Returns every name that `lookup(package, ...)` finds, sorted, without importing one of the modules."""
    return [f"{name}.{entry}" for name in modules(package) for entry in sorted(_public(f"{package}.{name}"))]


def modules(package: str) -> list[str]:
    """Returns the modules right below `package`, sorted, without importing them."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} does not exist"
    assert spec.submodule_search_locations, f"{package} is not a package"
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return sorted({path.stem for folder in folders for path in folder.glob("*.py") if not path.stem.startswith("_")})


def suggestion(name: str, known: list[str]) -> str:
    """Returns ` Did you mean ...? Known: ...`, to be put behind the sentence that says which name is wrong."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the last part alone is what people remember: `dpo` for `preference.dpo`
        near = [entry for entry in known if entry.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    meant = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    return f"{meant} Known: {shown or 'nothing'}"


def _public(name: str) -> set[str]:
    """Returns the public functions and classes that a module defines, read from its source, so nothing is run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} does not exist"
    assert spec.origin is not None, f"{name} has no source"
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {entry for entry in names if not entry.startswith("_")}


def _outside(name: str) -> Any:
    path, _, attribute = name.partition(":")
    found: Any = _import(path, name)
    for part in attribute.split("."):
        if not part or not hasattr(found, part):
            known = (
                sorted(entry for entry in vars(found) if not entry.startswith("_"))
                if hasattr(found, "__dict__")
                else []
            )
            raise errors.UserError(f"{name!r}: {path} has no {part!r}.{suggestion(part, known)}")
        found = getattr(found, part)
    return found


def _import(path: str, name: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise
        raise errors.UserError(
            f"{name!r}: no module named {error.name!r}; give it as package.module:attribute and run from a folder "
            "where it can be imported"
        ) from None
    except (TypeError, ValueError):
        raise errors.UserError(f"{name!r} is no name of the form package.module:attribute") from None
