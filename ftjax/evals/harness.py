"""A bridge to lm-evaluation-harness: its tasks ask a model of ours, and get what its `hf` backend gives.

`bridge` returns an `LM` for `lm_eval.simple_evaluate(model=...)`. Texts become tokens as there: the tokenizer's own
special tokens are added in front, spaces between context and continuation belong to the continuation, an empty context
is the BOS token (EOS without one).
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax

from ftjax.data import template
from ftjax.data.tokenizer import Tokenizer
from ftjax.errors import UserError
from ftjax.evals import continuations, extra, tasks
from ftjax.models.config import ModelConfig
from ftjax.sampling import generate

MOST_NEW = 256  # tokens of an answer where a task does not say, as in the harness
GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0}


def bridge(
    params: Any,
    config: ModelConfig,
    tok: Tokenizer,
    *,
    chat: template.Template | None,
    stop_ids: Sequence[int],
    length: int,
    rows: int,
    seed: int,
) -> Any:
    """Returns a model of ours as the harness's `LM`; `length` and `rows` are those of `continuations.score`."""
    api, windows = extra.library("lm_eval.api.model"), extra.library("lm_eval.utils")
    encoded = functools.lru_cache(maxsize=1024)(lambda text: tok.encode(text).ids)  # a context comes with each choice
    score = lambda pairs: continuations.score(params, config, pairs, length=length, rows=rows)

    read = lambda ids: tok.decode(ids, skip_special=True)

    def complete(prompts: Sequence[Sequence[int]], *, until: Sequence[str], **sampling: Any) -> list[str]:
        out = generate.generate(
            params, prompts, jax.random.key(seed), config, stop_ids=stop_ids, stop_strings=until, tokenizer=read,
            **sampling,
        )  # fmt: skip
        tokens, lengths = jax.device_get((out.tokens, out.mask.sum(axis=1)))
        return [read(row[:n].tolist()) for row, n in zip(tokens, lengths, strict=True)]

    class Bridge(api.TemplateLM):  # type: ignore[name-defined]
        """Answers the three kinds of requests."""

        @property
        def eot_token_id(self) -> int:
            return stop_ids[0]

        @property
        def prefix_token_id(self) -> int:
            return tok.bos_id if tok.bos_id is not None else self.eot_token_id

        @property
        def max_length(self) -> int:
            return config.context

        @property
        def tokenizer_name(self) -> str:
            return tok.fingerprint

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            ids = list(encoded(string))
            return ids if add_special_tokens is False or ids[:1] == tok.front else [*tok.front, *ids]

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return chat.text if chat is not None and chat_template else None

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            if chat is None:
                raise UserError("the model has no chat template; run the tasks without one, or name one")
            return template.render(
                chat, chat_history, tools=(), add_generation_prompt=add_generation_prompt, variables={}
            ).text

        def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            return [(one.logp, one.greedy) for one in score([(context, rest) for _, context, rest in requests])]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            del disable_tqdm
            pairs, owners = [], []
            for number, request in enumerate(requests):
                ids = self.tok_encode(request.args[0])
                for window in windows.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                    pairs.append(windows.make_disjoint_window(window))
                    owners.append(number)
            sums = [0.0] * len(requests)
            for number, one in zip(owners, score(pairs), strict=True):
                sums[number] += one.logp
            return sums

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            del disable_tqdm
            answers: dict[int, str] = {}
            for settings, numbers in _alike([request.args[1] for request in requests]):
                sampling, until = _sampling(dict(requests[numbers[0]].args[1]))
                room = config.context - sampling["max_new_tokens"]
                if room < 1:
                    raise UserError(
                        f"{settings}: its new tokens leave no room in a context of {config.context}; ask for fewer "
                        "with config.harness.new_tokens"
                    )
                prompts = [self.tok_encode(requests[n].args[0])[-room:] for n in numbers]
                made = tasks.completed(functools.partial(complete, until=until, **sampling), prompts, batch_size=rows)
                answers |= {numbers[place]: _before(text, until) for place, text in made}
            return [answers[n] for n in range(len(requests))]

    return Bridge()


def _alike(settings: Sequence[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """Returns the numbers of the requests whose settings are the same, group by group."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(settings):
        found.setdefault(repr(sorted(one.items(), key=str)), []).append(number)
    return list(found.items())


def _sampling(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns how to generate, and the texts that end an answer; UserError for what we do not have."""
    given = extra.library("lm_eval.models.utils").normalize_gen_kwargs(given, MOST_NEW)
    until, most = given.pop("until", []), int(given.pop("max_gen_toks"))
    given.pop("do_sample", None)  # without it the temperature is 0 by now
    sampling = {name: given.pop(name, value) for name, value in GREEDY.items()}
    if given:
        raise UserError(f"the task asks for {', '.join(sorted(given))} when generating, which ftjax does not have")
    return {**sampling, "max_new_tokens": most}, [stop for stop in until if stop]


def _before(text: str, until: Sequence[str]) -> str:
    for stop in until:
        text = text.split(stop, 1)[0]
    return text
