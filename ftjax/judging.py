"""A config -> what a judge says of pairs of answers. A composition root: `build` checks all, `measure` asks."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from ftjax import experiment, inference
from ftjax.checkpoint import hf_import
from ftjax.data import cache, files, pairs, records
from ftjax.errors import UserError
from ftjax.evals import judge, judge_report, judge_stub, replies, tasks
from ftjax.evals.budget import Budget

RANGES: dict[str, experiment.Range] = {
    "seed": experiment.RANGES["seed"],
    "judge.temperature": (lambda v: v >= 0, "at least 0"),
    "judge.max_tokens": experiment.COUNT,
    "judge.concurrency": experiment.COUNT,
    "judge.timeout": (lambda v: v > 0, "above 0 seconds"),
    "judge.retries": (lambda v: v >= 0, "at least 0"),
    "judge.backoff": (lambda v: v >= 0, "at least 0 seconds"),
    "judge.budget_tokens": (lambda v: v >= 1, "at least 1: a judge needs a budget"),
    "judge.budget_money": (lambda v: v >= 0, "at least 0 (0: no cap on money)"),
    "judge.prompt_price": (lambda v: v >= 0, "at least 0"),
    "judge.answer_price": (lambda v: v >= 0, "at least 0"),
    "stub.accuracy": experiment.SHARE,
    "stub.first": experiment.SHARE,
    "stub.nonsense": experiment.SHARE,
    "data.rows": (lambda v: v >= 0, "at least 0 (0: all)"),
    "eval.level": (lambda v: 0 < v < 1, "in (0, 1)"),
    "eval.resamples": (lambda v: v >= 1000, "at least 1000"),
}
CHOICES = {"judge.kind": ("endpoint", "local", "stub"), "judge.mode": tuple(judge.MODES)}
# What may be another when the judging of a folder goes on: nothing that the judge sees.
MAY_CHANGE = (
    *("judge.budget_tokens", "judge.budget_money", "judge.prompt_price", "judge.answer_price", "judge.concurrency"),
    *("judge.timeout", "judge.retries", "judge.backoff", "judge.key", "eval."),
)


@dataclasses.dataclass(frozen=True)
class Judging:
    """Everything that judging needs."""

    config: dict[str, Any]
    pairs: list[pairs.Pair]
    asked: list[list[judge.Asked]]  # of each pair
    key: str = dataclasses.field(repr=False)  # of the endpoint; in no file and no message
    made: inference.Made | None  # the local judge

    @property
    def name(self) -> str:
        """Returns who judges, for the name of a folder."""
        return f"judge-{self.config['judge']['model'] or self.config['judge']['kind']}"


def build(config: Any) -> Judging:
    """Returns the judging of a config; whatever is wrong with it is a UserError here, before anything is asked."""
    c = experiment.plain(config)
    experiment.check(c, RANGES, CHOICES)
    j, d = c["judge"], c["data"]
    if not d["path"]:
        raise UserError("config.data.path is empty; name a file of pairs: lines with prompt, a and b")
    found = pairs.read(d["path"])[: d["rows"] or None]
    shown = found if j["reference"] else [pair._replace(reference="") for pair in found]
    rubric = files.existing(j["rubric"]).read_text(encoding="utf-8") if j["rubric"] else ""
    if j["rubric"] and not rubric.strip():
        raise UserError(f"{j['rubric']} is empty; write into it what the judge is to judge by")
    key = _key(j) if j["kind"] == "endpoint" else ""
    made = _made(j["model"]) if j["kind"] == "local" else None
    return Judging(c, found, [judge.MODES[j["mode"]](pair, rubric=rubric) for pair in shown], key, made)


def _made(name: str) -> inference.Made:
    """Returns the local judge: a run with what it made, else a model folder."""
    if not name:
        raise UserError("config.judge.model is empty; name a model folder or a run as the local judge")
    folder = Path(name).expanduser()
    if (folder / "code.json").is_file():
        return inference.made_by(folder)
    inference.folder_of(name)
    return inference.Made(name, None, None)


def _key(j: Mapping[str, Any]) -> str:
    """Returns the key of the endpoint, empty where it needs none; UserError for what no request could go out with."""
    from ftjax.evals import endpoint

    if not j["url"].startswith(("http://", "https://")):
        raise UserError(f"config.judge.url is {j['url']!r}; give the address of the judge: https://host/v1")
    if not j["model"]:
        raise UserError("config.judge.model is empty; name the model that judges")
    if j["budget_money"] and not (j["prompt_price"] or j["answer_price"]):
        raise UserError(
            f"config.judge.budget_money is {j['budget_money']:g}, but nothing has a price; give "
            "config.judge.prompt_price and answer_price, for a million tokens"
        )
    key = os.environ.get(j["key"], "").strip() if j["key"] else ""
    if not key and not endpoint.is_loopback(j["url"]):
        raise UserError(
            f"the judge at {j['url']} needs a key, and the variable {j['key'] or '(none)'} is not set; export it, or "
            "name another one as config.judge.key"
        )
    return key


def measure(x: Judging, say: Callable[[str], None], keep: Callable[[list[dict[str, Any]]], None]) -> dict[str, Any]:
    """Returns what judge.json holds, after asking what was never asked before; `keep` gets what judgments.jsonl holds
    before anything is reckoned, so that it is there to look at where the verdicts come to nothing."""
    j, d, e = x.config["judge"], x.config["data"], x.config["eval"]
    requests = [one.messages for asked in x.asked for one in asked]
    budget = Budget(
        tokens=j["budget_tokens"],
        money=j["budget_money"],
        prompt_price=j["prompt_price"],
        answer_price=j["answer_price"],
    )
    ask, identity = _judge(x, budget)
    kept = replies.Replies(Path(":memory:") if j["kind"] == "stub" else cache.root() / "judge.sqlite")
    try:
        given, new = replies.ask(kept, identity, requests, ask, count=budget.count, tell=_tenths(say))
    finally:
        kept.close()
    texts = iter(given)
    answers = [[next(texts) for _ in asked] for asked in x.asked]
    judged = [
        judge.read(j["mode"], asked, [one.text for one in own]) for asked, own in zip(x.asked, answers, strict=True)
    ]
    keep([_row(*three) for three in zip(x.pairs, judged, answers, strict=True)])
    numbers = judge_report.report(x.pairs, judged, level=e["level"], resamples=e["resamples"], seed=x.config["seed"])
    return {
        "judge": {**identity, "mode": j["mode"]},
        "data": {"path": d["path"], "hash": _hash(x.pairs), "a": d["a"], "b": d["b"]},
        "verdict": judge_report.in_words(numbers, a=d["a"], b=d["b"]),
        "cost": {
            "requests": len(requests),
            "asked_now": new,
            "sent_now": getattr(ask, "requests", new),
            "retries_now": getattr(ask, "retries", 0),
            "prompt_tokens": sum(one.prompt_tokens for one in given),
            "answer_tokens": sum(one.completion_tokens for one in given),
            "estimated_now": getattr(ask, "estimated", 0),
            "money": budget.cost() if j["prompt_price"] or j["answer_price"] else None,
        },
        **numbers,
    }


def _tenths(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Returns what says how far the asking is, ten times in all."""
    return lambda done, total: (
        say(f"{done:,} of {total:,} answered") if done * 10 // total > (done - 1) * 10 // total else None
    )


def _judge(x: Judging, budget: Budget) -> tuple[Any, dict[str, Any]]:
    """Returns what asks, and what an answer depends on besides its request."""
    j = x.config["judge"]
    settings = {"kind": j["kind"], "temperature": j["temperature"], "max_tokens": j["max_tokens"]}
    if j["kind"] == "stub":
        stub = judge_stub.Stub(seed=x.config["seed"], **x.config["stub"])
        return stub, {"kind": "stub", "seed": x.config["seed"], **x.config["stub"]}
    if j["kind"] == "local":
        assert x.made is not None
        return _local(x.made, x.config), {**settings, **_identity(x.made), "seed": x.config["seed"]}
    from ftjax.evals import endpoint

    names = ("url", "model", "temperature", "max_tokens", "concurrency", "timeout", "retries", "backoff")
    ask = endpoint.Endpoint(**{name: j[name] for name in names}, key=x.key, budget=budget)
    return ask, {**settings, "url": ask.url, "model": j["model"]}


def _identity(made: inference.Made) -> dict[str, Any]:
    """Returns hashes of the local judge: of its base, and of the files of its adapter."""
    adapter = hashlib.sha256()
    for file in sorted(Path(made.adapter).glob("adapter_*")) if made.adapter else ():
        adapter.update(file.read_bytes())
    base = hf_import.content_hash(inference.folder_of(made.model))
    return {"model": base, "adapter": adapter.hexdigest(), "template": made.template, "quant": list(made.quant)}


def _local(made: inference.Made, c: Mapping[str, Any]) -> replies.Ask:
    """Returns a model of this machine that judges: greedy where the temperature is 0, in batches of like lengths."""
    j = c["judge"]
    model = inference.load_made(made, dtype="float32")

    def ask(requests: Sequence[judge.Messages], keep: replies.Keep) -> None:
        # One message: not every template has a place for a system's.
        told = ["\n\n".join(text for _, text in messages) for messages in requests]
        prompts = [model.prompt_ids([records.Message("user", text)]) for text in told]
        longest = max(map(len, prompts)) + j["max_tokens"]
        if longest > model.config.max_position:
            raise UserError(
                f"a request of {longest - j['max_tokens']} tokens and config.judge.max_tokens {j['max_tokens']} are "
                f"more than the {model.config.max_position} that the judge reads; take another judge, or give it less"
            )
        complete = functools.partial(
            model.complete,
            max_new_tokens=j["max_tokens"],
            temperature=j["temperature"],
            top_k=0,
            top_p=1.0,
            seed=c["seed"],
        )
        for number, text in tasks.completed(complete, prompts, batch_size=j["concurrency"]):
            keep(number, replies.Reply(text, len(prompts[number]), len(model.tokenizer.encode(text).ids)))

    return ask


def _row(pair: pairs.Pair, found: judge.Judged, answers: Sequence[replies.Reply]) -> dict[str, Any]:
    return {
        "where": pair.where,
        "prompt": pair.prompt,
        "winner": found.winner,
        "verdicts": list(found.verdicts),
        "ratings": list(found.ratings),
        "human": list(pair.human),
        "answers": [one.text for one in answers],
    }


def _hash(found: Sequence[pairs.Pair]) -> str:
    lines = "\n".join(repr(pair._replace(where="")) for pair in found)
    return hashlib.sha256(lines.encode()).hexdigest()
