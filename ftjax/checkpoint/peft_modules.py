"""The tensors of one module in a PEFT folder <-> the adapter of one matrix, by type.

To add an adapter type: a branch in `read` and one in `write` here, its keys in `peft_config.py`, and how its layers
are padded and found again in `peft_layers.py`.
"""

from collections.abc import Callable
import functools
from pathlib import Path
from typing import Any

import numpy as np

from ftjax.adapters import dora, ia3, lora, vera
from ftjax.checkpoint import peft_config, shards
from ftjax.errors import UserError

PREFIX = "base_model.model."


class Reader:
    """The tensors of a folder that nobody has asked for yet."""

    def __init__(self, folder: Path, stored: dict[str, shards.Entry]):
        self.folder = folder
        self.stored = stored
        self._shared: dict[str, np.ndarray] = {}

    def has(self, name: str) -> bool:
        """True where the folder has this tensor, and nobody took it."""
        return PREFIX + name in self.stored

    def take(self, name: str, why: str) -> np.ndarray:
        """Returns a tensor in float32, once; a missing one is a UserError."""
        entry = self.stored.pop(PREFIX + name, None)
        if entry is None:
            raise UserError(f"{self.folder}: tensor {PREFIX}{name} is missing, though adapter_config.json {why}")
        return shards.read(entry).astype(np.float32)

    def take_as(
        self, name: str, wanted: tuple[int, ...], why: str, explain: str | Callable[[tuple[int, ...]], str]
    ) -> np.ndarray:
        """Returns a tensor of this shape; another shape is a UserError with this reason, or `explain(its shape)`."""
        value = self.take(name, why)
        if value.shape != wanted:
            reason = explain if isinstance(explain, str) else explain(value.shape)
            raise UserError(f"{self.folder}: {PREFIX}{name} is {value.shape}, not {wanted}: {reason}")
        return value

    def shared(self, name: str) -> np.ndarray | None:
        """Returns a tensor outside of all modules, any number of times; None where there is none."""
        entry = self.stored.pop(f"base_model.{name}", None)
        if entry is not None:
            self._shared[name] = shards.read(entry).astype(np.float32)
        return self._shared.get(name)


def read(
    reader: Reader, module: str, settings: peft_config.Settings, rows: int, columns: int, largest: tuple[int, int]
) -> Any:
    """Returns the adapter of one module [rows, columns] and takes its tensors; `largest` is in and out of all."""
    why = f"targets {module}"
    vector = lambda name, size: reader.take_as(
        name, (size,), why, lambda found: f"the adapter is for another base, whose {module} has {_of(found)} numbers"
    )
    if settings.kind == "IA3":
        inputs = settings.is_feedforward(module)
        shape = (1, rows) if inputs else (columns, 1)
        explain = lambda found: f"the adapter is for another base, or feedforward_modules are not these ({_of(found)})"
        scales = reader.take_as(f"{module}.ia3_l", shape, why, explain).reshape(-1)
        if not np.all(scales):
            raise UserError(f"{reader.folder}: {module}.ia3_l has a scale of exactly 0, which has no form here")
        return ia3.IA3(l=scales, feedforward=inputs)
    if settings.kind == "VERA":
        a, b = _projections(reader, settings, largest)
        return vera.VeRA(
            a=a[:rows],
            b=b[:, :columns],
            lambda_d=vector(f"{module}.vera_lambda_d", settings.rank),
            lambda_b=vector(f"{module}.vera_lambda_b", columns),
            dropout=settings.dropout,
        )
    rank, scale = settings.scale(module)
    names = ("lora_embedding_A", "lora_embedding_B") if is_table(module) else ("lora_A.weight", "lora_B.weight")
    made = []
    for letter, name, wanted in zip("AB", names, ((rank, rows), (columns, rank)), strict=True):
        explain = functools.partial(_why, wanted=wanted, letter=letter)
        made.append(np.ascontiguousarray(reader.take_as(f"{module}.{name}", wanted, why, explain).T))
    if settings.kind == "LORA":
        return lora.LoRA(a=made[0], b=made[1], scale=scale, dropout=settings.dropout)
    magnitude = vector(f"{module}.lora_magnitude_vector", columns)
    if not np.all(magnitude):
        raise UserError(f"{reader.folder}: {module}.lora_magnitude_vector has a magnitude of exactly 0")
    return dora.DoRA(a=made[0], b=made[1], m=magnitude, scale=scale, dropout=settings.dropout)


def is_table(module: str) -> bool:
    """True for an embedding."""
    return module.rsplit(".", 1)[-1] == "embed_tokens"


def _projections(
    reader: Reader, settings: peft_config.Settings, largest: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shared matrices [in, R], [R, out]: of the file, or drawn as PEFT does where it left them out."""
    if not settings.save_projection:
        return vera.projections(settings.projection_key, settings.rank, *largest)
    found = []
    for name, wanted in (("vera_A", (settings.rank, largest[0])), ("vera_B", (largest[1], settings.rank))):
        value = reader.shared(name)
        if value is None:
            raise UserError(f"{reader.folder}: tensor base_model.{name} is missing, though save_projection is true")
        if value.shape != wanted:
            raise UserError(f"{reader.folder}: base_model.{name} is {value.shape}, not {wanted}: another base or rank")
        found.append(np.ascontiguousarray(value.T))
    return found[0], found[1]


def _of(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _why(shape: tuple[int, ...], wanted: tuple[int, ...], letter: str) -> str:
    """Returns the likely reason in words: another rank, or a base of another width."""
    rank_axis = 0 if letter == "A" else 1
    if len(shape) == 2 and shape[1 - rank_axis] == wanted[1 - rank_axis]:
        return f"its rank is {shape[rank_axis]}, adapter_config.json says {wanted[rank_axis]}"
    theirs, ours = shape[1 - rank_axis] if len(shape) == 2 else shape, wanted[1 - rank_axis]
    side = "reads" if letter == "A" else "writes"
    return f"the adapter is for another base, where this module {side} {theirs} numbers; in this one it {side} {ours}"


def write(module: str, node: Any) -> dict[str, Any]:
    """Returns the tensors of the adapter of one module, by name."""
    at = f"{PREFIX}{module}"
    if isinstance(node, ia3.IA3):
        return {f"{at}.ia3_l": node.l.reshape((1, -1) if node.feedforward else (-1, 1))}
    if isinstance(node, vera.VeRA):
        return {f"{at}.vera_lambda_d": node.lambda_d, f"{at}.vera_lambda_b": node.lambda_b}
    names = ("lora_embedding_A", "lora_embedding_B") if is_table(module) else ("lora_A.weight", "lora_B.weight")
    tensors = {f"{at}.{name}": value.T for name, value in zip(names, (node.a, node.b), strict=True)}
    if isinstance(node, dora.DoRA):
        tensors[f"{at}.lora_magnitude_vector"] = node.m
    return tensors


def write_projections(nodes: list[vera.VeRA]) -> dict[str, Any]:
    """Returns the shared matrices of all modules, which must be parts of one pair."""
    a, b = max((n.a for n in nodes), key=len), max((n.b for n in nodes), key=lambda b: b.shape[1])
    if any(not np.array_equal(n.a, a[: len(n.a)]) or not np.array_equal(n.b, b[:, : n.b.shape[1]]) for n in nodes):
        raise UserError("these VeRA adapters do not share one pair of matrices, so they have no PEFT form")
    return {"base_model.vera_A": a.T, "base_model.vera_B": b.T}
