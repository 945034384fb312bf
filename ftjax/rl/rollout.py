"""Prompts -> completions -> scores: the part of a step in which nothing is learned.

The host's share of it is text: completions are decoded and given to the reward functions. What it returns are rows that
lie on the devices, and numbers about them in TRL's names. Numbers in brackets are the details of docs/ppo.md.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import hosts
from ftjax.data.prompts import Prompt, PromptBatch
from ftjax.errors import UserError
from ftjax.models.config import ModelConfig
from ftjax.rl import endings, layout
from ftjax.rl.rewards import Failure, Sample, Scored
from ftjax.sampling import generate, stops

ROUND = 16  # places of a completion are rounded up to a multiple of it, so that few programs are compiled


class Settings(NamedTuple):
    """How completions are drawn."""

    samples: int  # of each prompt
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    slots: int  # completions that are decoded at a time; 0: all
    stop_ids: tuple[int, ...]
    stop_strings: tuple[str, ...]
    fixed_length: bool  # draw to the end and cut at the stop token afterwards (4)
    stop_from: int  # with it: stop tokens before this place do not count (16 in lm-human-preferences)


class Judge(NamedTuple):
    """A trained reward model: `score(base, rows) -> [P, G]`, normalised."""

    name: str
    weight: float
    score: Callable[[Any, layout.Rows], jax.Array]


class Drawn(NamedTuple):
    """What of the last completions is for people: a table with their scores, and the rewards that failed."""

    table: list[dict[str, Any]]
    failures: list[Failure]


class Completed(NamedTuple):
    """Completions with their scores; the first axis is the prompt."""

    rows: layout.Rows
    sampler_logps: jax.Array  # float32 [P, G, N], of the distribution that was sampled from
    scores: jax.Array  # float32 [P, G], with what a missing end costs
    valid: jax.Array  # float32 [P, G]: 0 where a reward failed, and in rows of padding
    ended: jax.Array  # float32 [P, G]: 1 where the completion has its stop token


@dataclasses.dataclass
class Rollout:
    """Draws and scores completions; keeps the last ones, to be shown."""

    config: ModelConfig
    settings: Settings
    prompts: Mapping[int, Prompt]  # by number
    tokenizer: stops.Tokenizer
    score: Callable[[Sequence[Sample]], Scored] | None
    judges: Sequence[Judge]
    ending: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]  # (scores, ended, lengths) -> scores, all [B]
    place: Callable[[Any], Any]
    last: Drawn | None = None

    def __call__(
        self, params: Any, base: Any, batch: PromptBatch, key: jax.Array
    ) -> tuple[Completed, dict[str, Any]]:  # fmt: skip
        """Returns completions of the prompts of a batch by `params`, and numbers about them; judges are on `base`.

        Raises UserError where no row has a score.
        """
        began = time.monotonic()
        prompts, segments, numbers = hosts.on_host((batch.tokens, batch.segments, batch.numbers))
        asked = [tokens[mask > 0].tolist() for tokens, mask in zip(prompts, segments, strict=True)]
        tokens, logps, mask, ended = self._draw(params, asked, key)
        drawn = time.monotonic()
        host = layout.arrange(prompts, segments, tokens, mask)
        rows = self.place(host)
        members = [self.prompts[int(number)] for number in numbers]
        samples = [
            Sample(
                prompt=members[p].text,
                completion=self.tokenizer.decode(tokens[p, g][mask[p, g] > 0].tolist(), skip_special=True),
                ended=bool(ended[p, g]),
                tokens=int(mask[p, g].sum()),
                row={**members[p].row, "whole_row": members[p].row},
            )
            for p in range(len(asked))
            for g in range(self.settings.samples)
        ]
        scores, valid, parts, failures = self._score(samples, base, rows)
        paid = self.ending(scores.reshape(-1), ended.reshape(-1), mask.sum(axis=2).reshape(-1))
        scores = np.where(valid, np.asarray(paid).reshape(scores.shape), 0.0)
        if not valid.any():
            raise UserError(
                f"no completion of this step has a score: {failures[-1].why if failures else 'no reward applies'}; "
                "mend the rewards, and go on with --resume"
            )
        told = self._told(mask, ended, scores, valid, parts)
        told |= {"time/generate": drawn - began, "time/score": time.monotonic() - drawn}
        table = [
            {"prompt": one.prompt, "completion": one.completion, "score": float(score)}
            | {name: float(values.reshape(-1)[at]) for name, values in parts.items()}
            for at, (one, score) in enumerate(zip(samples, scores.reshape(-1), strict=True))
        ]
        self.last = Drawn(table, failures)
        arrays = (logps.astype(np.float32), scores.astype(np.float32), valid.astype(np.float32))
        return Completed(rows, *self.place((*arrays, ended.astype(np.float32)))), told

    def _draw(self, params: Any, asked: list[list[int]], key: jax.Array) -> tuple[np.ndarray, ...]:
        """Returns tokens, log-probabilities and mask [P, G, N], and whether a completion has its stop token [P, G]."""
        s = self.settings
        # One key for all processes: a row's draws are those of its number in the whole batch (22).
        out = generate.generate(
            params,
            asked,
            key,
            self.config,
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            top_k=s.top_k,
            top_p=s.top_p,
            min_p=s.min_p,
            stop_ids=s.stop_ids,
            stop_strings=s.stop_strings,
            tokenizer=self.tokenizer,
            samples=s.samples,
            slots=s.slots,
            ignore_stop=s.fixed_length,
        )
        tokens, logps, mask, ended = hosts.on_host(tuple(out))
        if s.fixed_length:
            found = map(jnp.asarray, (tokens, mask.astype(np.float32), np.asarray(s.stop_ids or (-1,), np.int32)))
            cut, has_stop = endings.truncate(*found, start=s.stop_from)
            mask, ended = np.asarray(cut).astype(np.int32), np.asarray(has_stop)
        # One place more than the longest needs: PPO may pay a score at the place after the last token (8), and
        # whether there is one must not depend on the neighbours.
        longest = int(mask.sum(axis=1).max()) + 1
        length = min(-(-longest // ROUND) * ROUND, s.max_new_tokens)
        split = lambda x: x[:, :length].reshape(len(asked), s.samples, length)
        return split(tokens * mask), split(logps * mask), split(mask), ended.reshape(len(asked), s.samples)

    def _score(
        self, samples: list[Sample], base: Any, rows: layout.Rows
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], list[Failure]]:
        """Returns scores and validity [P, G], what each reward said, and where one failed."""
        shape = rows.completions.shape[:2]
        scores, valid = np.zeros(shape), np.ones(shape, bool)
        parts: dict[str, np.ndarray] = {}
        failures: list[Failure] = []
        if self.score is not None:
            found = self.score(samples)
            scores, valid = scores + found.scores.reshape(shape), found.valid.reshape(shape)
            parts |= {name: np.asarray(values).reshape(shape) for name, values in found.parts.items()}
            failures += found.failures
        for judge in self.judges:
            said = np.asarray(hosts.on_host(judge.score(base, rows)), np.float64)
            parts[judge.name] = said
            failures += [
                Failure(int(at), judge.name, f"the reward model says {said.flat[at]}", samples[at].prompt)
                for at in np.flatnonzero(~np.isfinite(said))
            ]
            valid &= np.isfinite(said)
            scores += judge.weight * np.where(np.isfinite(said), said, 0.0)
        return np.where(valid, scores, 0.0), valid, parts, failures

    def _told(
        self,
        mask: np.ndarray,
        ended: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
        parts: Mapping[str, np.ndarray],
    ) -> dict[str, Any]:
        lengths = mask.sum(axis=2).reshape(-1)
        terminated = lengths[ended.reshape(-1)]
        told = {}  # the same names in every step: they are arguments of the compiled one
        for what, of in _STATISTICS.items():
            told[f"completions/{what}_length"] = np.float32(of(lengths))
            told[f"completions/{what}_terminated_length"] = np.float32(of(terminated) if len(terminated) else 0)
        told["completions/clipped_ratio"] = np.float32(1 - ended.mean())
        told["val/num_eos_tokens"] = np.float32(ended.sum())
        told["objective/scores"] = np.float32(scores[valid].mean())
        told["rewards/failed"] = np.float32((~valid).sum())
        for name, values in parts.items():
            known = values[np.isfinite(values)]
            told[f"rewards/{name}/mean"] = np.float32(known.mean() if len(known) else 0)
            told[f"rewards/{name}/std"] = np.float32(known.std(ddof=1) if len(known) > 1 else 0)
        told["tokens"] = np.float32(mask.sum())
        return told


_STATISTICS: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "min": np.min, "max": np.max}
