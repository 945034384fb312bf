"""bitsandbytes 4-bit folders, as transformers saves them, read without bitsandbytes and without CUDA.

A weight [out, in] is stored flat: codes two in a byte, the even index in the high nibble; a scale for each block of
64 numbers of the flat weight; the scales themselves in 8 bits under double quantisation. Here it becomes a node of the
same codes with float32 scales: its dequantised weights are bitsandbytes' to the bit, in 4.5 bits a parameter. Where
`in` is not a multiple of the block, blocks run over the ends of rows, and the groups are what row and block share.
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from ftjax.checkpoint import shards
from ftjax.errors import UserError
from ftjax.quant import convert, fp4, nf4

_STATE = "quant_state.bitsandbytes__"
_KINDS = {"nf4": nf4.NF4, "fp4": fp4.FP4}


class Packed(NamedTuple):
    """One weight in a checkpoint, not yet read."""

    name: str
    kind: str
    shape: tuple[int, int]  # (out, in)
    block: int
    facts: dict[str, Any]
    parts: dict[str, shards.Entry]  # by the end of the name; "" is the codes

    @property
    def few(self) -> convert.Few:
        """The format of its node, and the numbers along `in` that share a scale."""
        return convert.Few(self.kind, math.gcd(self.shape[1], self.block))


def is_bnb(hf: dict[str, Any]) -> bool:
    """True for a config.json of a bitsandbytes 4-bit checkpoint; its 8-bit kind is a UserError."""
    section = hf.get("quantization_config") or {}
    if section.get("quant_method", "bitsandbytes" if "bnb_4bit_quant_type" in section else None) != "bitsandbytes":
        return False
    if not (section.get("load_in_4bit") or section.get("_load_in_4bit")):
        raise UserError("quantization_config: bitsandbytes in 8 bits is not implemented; known: 4 bits (nf4, fp4)")
    return True


def split(stored: dict[str, shards.Entry]) -> tuple[dict[str, shards.Entry], dict[str, Packed]]:
    """Returns the tensors that are stored as they are, and those in 4 bits by the name of their weight."""
    states = {name: name.partition(f".{_STATE}") for name in stored if _STATE in name}
    packed, used = {}, set()
    for name, (weight, _, kind) in states.items():
        facts = json.loads(bytes(shards.raw(stored[name])))
        if kind not in _KINDS or facts.get("quant_type") != kind:
            raise UserError(f"{stored[name].file}: {weight} is stored as {kind!r}; known: {', '.join(_KINDS)}")
        parts = {end: stored[f"{weight}{end}"] for end in _ends(facts) if f"{weight}{end}" in stored}
        lacking = [f"{weight}{end}" for end in _ends(facts) if end not in parts]
        if lacking:
            raise UserError(f"{stored[name].file}: {', '.join(lacking)} is missing, though {weight} is in 4 bits")
        packed[weight] = Packed(weight, kind, tuple(facts["shape"]), facts["blocksize"], facts, parts)
        used |= {name, *(entry.name for entry in parts.values()), f"{weight}.quant_map", f"{weight}.nested_quant_map"}
    return {name: entry for name, entry in stored.items() if name not in used}, packed


def _ends(facts: dict[str, Any]) -> tuple[str, ...]:
    nested = (".nested_absmax", ".nested_quant_map") if "nested_blocksize" in facts else ()
    return ("", ".absmax", *nested)


def read(packed: Packed, where: str) -> Any:
    """Returns the node of one matrix [in, out], of NumPy arrays; a misshapen part is a UserError that names it."""
    rows, columns = packed.shape
    codes = shards.raw(packed.parts[""])
    blocks = -(-rows * columns // packed.block)
    nested = "nested_blocksize" in packed.facts
    absmax = shards.raw(packed.parts[".absmax"]).view(np.uint8 if nested else np.float32)
    if columns % 2 or codes.size != rows * columns // 2 or absmax.size != blocks:
        raise UserError(
            f"{where}: {codes.size} bytes and {absmax.size} scales do not hold {packed.shape} in blocks of "
            f"{packed.block} with an even number of inputs"
        )
    if nested:
        outer, table = (shards.read(packed.parts[f".nested_{what}"]) for what in ("absmax", "quant_map"))
        spread = np.repeat(outer, packed.facts["nested_blocksize"])[:blocks]
        absmax = table[absmax] * spread + np.float32(packed.facts["nested_offset"])
    flat = np.arange(rows)[None] * columns + np.arange(0, columns, packed.few.group)[:, None]  # where groups begin
    scales = absmax.astype(np.float32)[flat // packed.block]
    turned = np.ascontiguousarray(codes.reshape(rows, columns // 2).T)
    return _KINDS[packed.kind](codes=turned, scales=np.ascontiguousarray(scales))
