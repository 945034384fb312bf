"""Prompts -> completions, over any base with any adapter: all rows at once, or through slots that a queue fills."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax.errors import UserError
from ftjax.models.config import ModelConfig
from ftjax.sampling import queue, stops, warp
from ftjax.sampling import rows as programs

MULTIPLE = 32  # that the length of prompts is rounded up to, so that few programs are compiled


class Generated(NamedTuple):
    """Completions of a batch of prompts, [B, N]; `samples` of one prompt lie side by side."""

    tokens: jax.Array  # int32, 0 after the end of a row
    logps: jax.Array  # float32: log-probability under the distribution that was sampled from
    mask: jax.Array  # int32: 1 for generated tokens, the stop token included
    ended: jax.Array  # bool [B]: by a stop token or a stop string, not by length


# What the numbers may be: as it is said, and whether it holds.
RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "max_new_tokens": (">= 1", lambda x: x >= 1),
    "temperature": (">= 0", lambda x: x >= 0),
    "top_k": (">= 0", lambda x: x >= 0),
    "top_p": ("in (0, 1]", lambda x: 0 < x <= 1),
    "min_p": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "repetition_penalty": ("> 0", lambda x: x > 0),
    "samples": (">= 1", lambda x: x >= 1),
    "slots": (">= 0 (0: as many as rows)", lambda x: x >= 0),
}


def _check_numbers(values: Mapping[str, int | float]) -> None:
    """Raises UserError for the first number that is out of its range."""
    for name, value in values.items():
        said, holds = RANGES[name]
        if not holds(value):
            raise UserError(f"{name} {value} must be {said}")


def check_room(prompt: int, new: int, config: ModelConfig) -> None:
    """Raises a UserError where a prompt of so many tokens and so many new ones do not fit into the context."""
    if prompt + new > config.context:
        raise UserError(
            f"a prompt of {prompt} tokens and {new} new ones exceed the context of {config.context}; "
            "shorten the prompt or lower max_new_tokens"
        )


def _longest(prompts: Sequence[Sequence[int]]) -> int:
    """Returns the length of the longest prompt; raises UserError where one is empty, or there is none."""
    if min(map(len, prompts), default=0) == 0:
        raise UserError("every prompt needs at least one token; an empty one has nothing to continue")
    return max(map(len, prompts))


def generate(
    params: Any,
    prompts: Sequence[Sequence[int]],
    key: jax.Array,
    config: ModelConfig,
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    stop_ids: Sequence[int],
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop_strings: Sequence[str] = (),
    tokenizer: stops.Tokenizer | stops.Decode | None = None,
    samples: int = 1,
    slots: int = 0,
    ignore_stop: bool = False,
) -> Generated:
    """Returns `samples` completions of every prompt (lists of token ids, of unequal length).

    temperature 0 is greedy, with log-probabilities of 0; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 leave the
    distribution whole. A row ends with the first of `stop_ids`, which it keeps, or with the token that completes one
    of `stop_strings` in the text that `tokenizer` makes of it. With `ignore_stop` it goes on to max_new_tokens, and
    `ended` says that a stop token is somewhere in it.

    What a row gets depends on `key`, its number and its own prompt. Its neighbours, also those that fill up slots,
    change nothing, to the bit, while the number of rows and the rounded length of the longest prompt stay; other
    shapes sum in another order, which can turn a draw that rounding decides. Two ropes, dynamic and longrope, are
    stretched by the longest row of the batch, as in transformers.

    `slots` (0: as many as there are rows) limits how many rows are decoded at a time: the others wait, and each takes
    the place of one that has finished. Under a mesh that is set (`jax.set_mesh`), rows lie over data and fsdp.
    """
    _check_numbers(
        {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        | {"repetition_penalty": repetition_penalty, "samples": samples, "slots": slots}
    )
    longest = _longest(prompts)
    check_room(longest, max_new_tokens, config)
    if ignore_stop and stop_strings:
        raise UserError("ignore_stop with stop_strings: rows that never stop are not read for strings; leave out one")
    rows = len(prompts) * samples
    find = stops.finder(stop_strings, tokenizer) if stop_strings else None
    number: Any = lambda value, off: None if value == off else np.float32(value)
    rules = programs.Rules(
        # None leaves a warp out of the program: greedy decoding draws nothing, a whole distribution is not searched.
        warps=warp.Warps(number(temperature, 0), number(top_p, 1), number(min_p, 0), number(repetition_penalty, 1)),
        stop_ids=np.asarray(tuple(stop_ids) or (-1,), np.int32),
        top_k=top_k,
        new=max_new_tokens,
        ignore_stop=np.bool_(ignore_stop),
    )
    if find is not None or 0 < slots < rows:
        made = queue.run(params, prompts, key, rules, config, samples=samples, slots=slots or rows, find=find)
        mask = np.arange(max_new_tokens)[None] < made.counts[:, None]
        return Generated(*map(jnp.asarray, (made.tokens, made.logps, mask.astype(np.int32), made.ended)))
    tokens, valid = queue.left_pad(prompts, -(-longest // MULTIPLE) * MULTIPLE)
    started = programs.begin(params, tokens, valid, key, rules, config=config, samples=samples)
    done, columns = programs.advance(
        params, started, np.zeros(rows, bool), rules, config=config, steps=max_new_tokens - 1
    )
    return Generated(columns.tokens, columns.logps, columns.mask, done.ended_B)
