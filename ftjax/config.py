"""What stands between a config file and the code: argument strings, binding a section to a function, JSON and back.

A config is a locked ConfigDict that only `configs/`, this module and `experiment.py` ever see. This module does not
import jax, and neither does a config file, so a typo is found before a device is touched.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
import contextlib
import difflib
import functools
import importlib.util
import inspect
import itertools
import json
from pathlib import Path
import re
import types
import typing
from typing import Any
import warnings

import ml_collections
from ml_collections import config_dict

from ftjax import errors, lookup

# An entry of a tuple and the comma behind it: quoted, where commas and other quotes belong to it, or plain.
_ITEM = re.compile(r"""\s*(?:("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*|([^,]*))(?:,|$)""", re.DOTALL)
SCALARS = (bool, int, float, str, tuple)


def parse(arg: str, /, **defaults: bool | int | float | str) -> types.SimpleNamespace:
    """Returns the arguments of a config file, `configs/x.py:debug,model=llama,steps=10`, each with its default's type.

    A name alone switches a bool on. What the config file does not know is refused, with the nearest name.
    """
    values: dict[str, Any] = dict(defaults)
    seen: set[str] = set()
    for part in (part.strip() for part in arg.split(",") if part.strip()):
        name, has_value, text = (piece.strip() for piece in part.partition("="))
        if name not in defaults:
            takes = ", ".join(sorted(defaults)) or "nothing"
            raise errors.UserError(
                f"unknown config argument {name!r};{_meant(name, defaults)} this config takes {takes}"
            )
        if name in seen:
            raise errors.UserError(f"config argument {name!r} is given twice; give it once")
        seen.add(name)
        if not has_value and not isinstance(defaults[name], bool):
            raise errors.UserError(f"config argument {name!r} needs a value; write {name}=...")
        values[name] = _typed(name, text if has_value else "true", type(defaults[name]))
    return types.SimpleNamespace(**values)


def known(argument: str, value: str, names: Iterable[str]) -> str:
    """Returns the value of a config file's argument; raises UserError where it is none of the names."""
    if value not in names:
        raise errors.UserError(f"config argument {argument}={value}.{lookup.suggestion(value, list(names))}")
    return value


def bind(function: Callable[..., Any], section: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns `function` with the hyper-parameters of a config section filled in; exactly those, none missing.

    A hyper-parameter is a keyword-only parameter annotated bool, int, float, str, tuple, Literal, or one of these or
    None; arrays and trees are not. `name` in the section is the name of the function itself.
    """
    wanted = hyper_parameters(function)
    given = set(section) - {"name"}
    label = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
    if given != set(wanted):
        missing, useless = sorted(set(wanted) - given), sorted(given - set(wanted))
        meant = "".join(_meant(name, missing) for name in useless)
        raise errors.UserError(
            f"{label} takes {sorted(wanted)}; the config section misses {missing} and has no use for {useless}.{meant}"
        )
    values = {name: _fitting(f"{label}: {name}", section[name], annotation) for name, annotation in wanted.items()}
    return functools.partial(function, **values)


def hyper_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotation of each hyper-parameter of `function`, by name."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and _scalar(p.annotation)}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{"optimizer.learning_rate": 0.001, ...}`; an empty section stays, as `{}`, so that nothing is lost."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict) and len(value):
            flat |= {f"{key}.{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[str(key)] = {} if isinstance(value, Mapping | ml_collections.ConfigDict) else value
    return flat


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns where two configs differ, by dotted name, sorted; a side that lacks the key has `...`.

    Compares what JSON keeps: a tuple equals the list it became, 1 equals 1.0, but True does not equal 1.
    """
    one, two = flatten(a), flatten(b)
    pairs = {key: (one.get(key, ...), two.get(key, ...)) for key in sorted(one.keys() | two.keys())}
    return {key: (left, right) for key, (left, right) in pairs.items() if _plain(left) != _plain(right)}


def thaw(value: Any) -> Any:
    """Returns JSON data as a config holds it: lists are tuples (a flag can override a tuple, not a list)."""
    if isinstance(value, list):
        return tuple(thaw(item) for item in value)
    return {key: thaw(item) for key, item in value.items()} if isinstance(value, dict) else value


def from_run(folder: str | Path, defaults: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """Returns the locked config of a run folder, equal to the one that started it.

    Keys that the run does not have, because an older ftjax made it, are those of `defaults`.
    """
    path = Path(folder) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise errors.UserError(f"{path} is missing; give the folder of a run, runs/NAME") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise errors.UserError(
            f"{path} cannot be read as JSON ({error}); give the folder of a run, runs/NAME"
        ) from None
    if not isinstance(data, dict):
        raise errors.UserError(f"{path} holds no object; give the folder of a run, runs/NAME")
    return ml_collections.ConfigDict(_with_placeholders(_completed(thaw(data), defaults or {}))).lock()


def load(spec: str) -> ml_collections.ConfigDict:
    """Returns the locked config of `configs/x.py:arguments`: what the file's `get_config("arguments")` returns."""
    name, _, arg = spec.partition(":")
    module = _module(name)
    if not hasattr(module, "get_config"):
        raise errors.UserError(f"{name} defines no get_config(arg); see configs/quickstart.py")
    try:
        return module.get_config(arg).lock()
    except AttributeError as error:  # ml_collections' own error for a key that the locked defaults do not have
        if "locked" not in str(error):
            raise
        raise errors.UserError(f"{name}: {str(error).splitlines()[0]}") from error


def sweep(spec: str) -> list[dict[str, Any]]:
    """Returns the flat changes of each run of a sweep: what the file's `get_sweep("arguments")` returns."""
    name, _, arg = spec.partition(":")
    module = _module(name)
    if not hasattr(module, "get_sweep"):
        raise errors.UserError(f"{name} defines no get_sweep(arg); see configs/sweeps/lora.py")
    return [dict(changes) for changes in module.get_sweep(arg)]


def grid(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Returns the changes of every combination of `{"adapter.rank": (1, 4), "seed": (0, 1)}`, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _module(name: str) -> types.ModuleType:
    """Returns the module of a config file."""
    path = Path(name)
    if not path.is_file():
        around = sorted(str(file) for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise errors.UserError(f"no config file {name!r}.{lookup.suggestion(name, around)}")
    found = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    if found is None or found.loader is None:
        raise errors.UserError(f"{name!r} is no Python file; give a file under configs/, say configs/quickstart.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def overrides(argv: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the `--config.key=value` (or `--config.key value`) flags by key, and all other words in their order."""
    changes: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, has_value, value = word.removeprefix("--config.").partition("=")
        text = value if has_value else next(words, None)
        if text is None:
            raise errors.UserError(f"--config.{key} needs a value; write --config.{key}=VALUE")
        changes[key] = text
    return changes, rest


def override(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns the same locked config with flat changes `{"optimizer.learning_rate": 1e-3}` made in it.

    A wrong key or a value of a wrong type is a UserError of one line. Strings are read as the type of the field,
    as a flag `--config.optimizer.learning_rate=1e-3` is.
    """
    for key, value in changes.items():
        set_one(config, key, value)
    return config


def set_one(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    """Sets one dotted key of a locked config, converted to the type of the field that it replaces."""
    section, names = config, key.split(".")
    for depth, name in enumerate(names):
        if not isinstance(section, ml_collections.ConfigDict) or name not in section:
            raise errors.UserError(unknown_key(config, ".".join(names[: depth + 1])))
        if depth < len(names) - 1:
            section = section[name]
    kind = section.get_type(names[-1])
    if issubclass(kind, ml_collections.ConfigDict):
        inside = ", ".join(f"{key}.{name}" for name in section[names[-1]])
        raise errors.UserError(f"config.{key} is a section, not a value; set one of {inside}")
    if isinstance(value, str) and kind in SCALARS:
        value = _typed(f"config.{key}", value, kind)
    try:
        section[names[-1]] = value
    except TypeError:
        raise errors.UserError(f"config.{key}: {value!r} is no {kind.__name__}; give {_a(kind)}") from None


def unknown_key(config: ml_collections.ConfigDict, key: str) -> str:
    """Returns the line that says that the config has no such key, and which is near."""
    known = list(_keys(config))
    return f"the config has no {key!r}.{_meant(key, known) or f' It has {_siblings(config, key)}.'}"


def _siblings(config: ml_collections.ConfigDict, key: str) -> str:
    section = config
    for name in key.split(".")[:-1]:
        inner = section[name] if isinstance(section, ml_collections.ConfigDict) and name in section else None
        if not isinstance(inner, ml_collections.ConfigDict):
            break
        section = inner
    return ", ".join(sorted(section))


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")


def _meant(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean ...?`; a dotted name that is right but for its section is found by its last part."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not near:
        tails: dict[str, str] = {}
        for entry in names:
            tails.setdefault(entry.rpartition(".")[2], entry)
        near = [
            tails[tail] for tail in difflib.get_close_matches(name.rpartition(".")[2], list(tails), n=1, cutoff=0.7)
        ]
    return f" Did you mean {near[0]!r}?" if near else ""


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Returns the alternatives of an annotation: the types of `int | None`, the values of `Literal["a", "b"]`."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        return tuple(kind for part in typing.get_args(annotation) for kind in _kinds(part))
    if origin is typing.Literal:
        return typing.get_args(annotation)
    return (type(None) if annotation is None else origin or annotation,)


def _scalar(annotation: Any) -> bool:
    return all(kind in (*SCALARS, type(None)) if isinstance(kind, type) else True for kind in _kinds(annotation))


def _fitting(label: str, value: Any, annotation: Any) -> Any:
    """Returns `value` if the annotation allows it; an int becomes the float that a float parameter wants."""
    kinds = _kinds(annotation)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        return float(value)
    for kind in kinds:
        if kind == value if not isinstance(kind, type) else type(value) is kind:
            return value
    shown = " or ".join(kind.__name__ if isinstance(kind, type) else repr(kind) for kind in kinds)
    raise errors.UserError(f"{label} is {value!r}; give {shown.replace('NoneType', 'None')}")


def _typed(name: str, text: str, kind: type) -> Any:
    """Returns `text` read as `kind`."""
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise errors.UserError(f"{name}={text}: write true or false")
        return words[text.lower()]
    if kind is tuple:
        return _tuple(name, text)
    try:
        return kind(text)
    except ValueError:
        raise errors.UserError(f"{name}={text}: {text!r} is no {kind.__name__}; give {_a(kind)}") from None


def _tuple(name: str, text: str) -> tuple[Any, ...]:
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1]
    items = [(quoted or plain).strip() for quoted, plain in _ITEM.findall(inner)]
    return tuple(_item(name, item) for item in items if item)


def _item(name: str, text: str) -> Any:
    """Returns one entry of a tuple: a number, a quoted string, or the text itself (`2024.jsonl`)."""
    if text[0] in "'\"":
        value = _quoted(text)
        if value is None:
            raise errors.UserError(f"{name}={text}: the quotes do not close; write a tuple as (1, 2) or (a, b)")
        return value
    try:
        return json.loads(text) if text[0] in "-0123456789" else text
    except json.JSONDecodeError:
        return text


def _quoted(text: str) -> str | None:
    """Returns a text that is quoted as in JSON, which is how we write one ourselves, or as in Python; else None."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash that begins nothing: it stays
            value = read(text)
            return value if isinstance(value, str) else None
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return (type(value) is bool, value)


def _completed(data: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the data with the keys that only the defaults have."""
    known = lambda key: defaults[key] if isinstance(defaults.get(key), dict) else {}
    return {**defaults, **{k: _completed(v, known(k)) if isinstance(v, dict) else v for k, v in data.items()}}


def _with_placeholders(data: dict[str, Any]) -> dict[str, Any]:
    """Returns the data with each None as an open field, which a flag or a file can still set."""
    filled: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            filled[key] = _with_placeholders(value)
        else:
            filled[key] = config_dict.placeholder(object) if value is None else value
    return filled


def _a(kind: type) -> str:
    return f"{'an' if kind is int else 'a'} {kind.__name__}"
