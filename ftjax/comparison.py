"""Policies that came from one start, side by side: true and learned reward against the KL to the start.

A stage of a pipeline with a section `compare`. One completion of each held-out prompt is drawn at temperature 1; what
stands in the table is the mean over prompts with its 95 % interval (bootstrap over prompts), and for several seeds of
one method the mean over all of them. Best-of-n takes, of n completions of the start, the one of the highest learned
reward; its KL is bounded by log n - (n - 1) / n.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ftjax import inference, lookup, scoring
from ftjax.checkpoint import hf_import
from ftjax.data import prompts
from ftjax.errors import UserError
from ftjax.models.config import ModelConfig
from ftjax.rl import groups, layout
from ftjax.runs import plots
from ftjax.runs.folder import Folder
from ftjax.sampling import generate

DRAWS = 2000  # of the bootstrap
SEED = 1 << 20  # away from the keys of training

Say = Callable[[str], None]


def make(config: Mapping[str, Any], folder: Folder, say: Say) -> dict[str, Any]:
    """Returns the summary of a stage that writes comparison.md, comparison.json and a picture into its folder."""
    c = config["compare"]
    check = lookup.lookup("ftjax.evals", c["check"])
    began = inference.made_by(c["start"])
    base = inference.load_made(began._replace(adapter=None), dtype="float32")
    start = base if began.adapter is None else inference.with_adapter(base, began.adapter)
    judge = scoring.load([c["reward"]])
    asked, _ = prompts.read(
        c["prompts"], start.tokenizer, made=start.template, max_length=c["max_length"], truncation="drop",
        numbers=itertools.count(),
    )  # fmt: skip
    measure = functools.partial(_measure, asked=asked, check=check, judge=judge, start=start, base=base, c=c)
    rows = [{"method": "start", "run": c["start"], **measure(start, samples=1)}]
    say(_said(rows[-1]))
    rows.append({"method": f"best of {c['best_of']}", "run": c["start"], **measure(start, samples=c["best_of"])})
    say(_said(rows[-1]))
    for name, path in zip(c["names"], c["policies"], strict=True):
        made = inference.made_by(path)
        if hf_import.content_hash(inference.folder_of(made.model)) != hf_import.content_hash(start.folder):
            raise UserError(f"{path} is on another base than {c['start']}; compare policies of one base")
        if made.adapter is not None and made.quant == began.quant:
            policy = inference.with_adapter(base, made.adapter)
        else:
            policy = inference.load_made(made, dtype="float32")
        rows.append({"method": name, "run": str(path), **measure(policy, samples=1)})
        say(_said(rows[-1]))
    found = by_method(rows, float(np.std(rows[0]["rewards"], ddof=1)))
    folder.json("comparison.json", {"methods": found, "runs": [_bare(row) for row in rows], "prompts": len(asked)})
    folder.text("comparison.md", markdown(found, len(asked)))
    points = [(one["method"], one["kl"], one["reward"], one["reward_interval"]) for one in found]
    plots.frontier(points, folder.path / "comparison.png", title="True reward against KL", unit="true reward")
    summary = {"methods": found}
    folder.summary(summary)
    folder.done()
    return summary


def _measure(
    model: inference.Model,
    *,
    samples: int,
    asked: Sequence[prompts.Prompt],
    check: Callable[[Mapping[str, Any], str], float],
    judge: scoring.Scorer,
    start: inference.Model,
    base: inference.Model,
    c: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what a policy's completions are worth; of several of each prompt, the best by the learned reward."""
    each: dict[str, list[float]] = {name: [] for name in ("rewards", "learned", "kls", "base_nats", "tokens")}
    for first in range(0, len(asked), c["batch_size"]):
        some = asked[first : first + c["batch_size"]]
        out = generate.generate(
            model.params, [one.ids.tolist() for one in some], jax.random.key(SEED + c["seed"] + first), model.config,
            max_new_tokens=c["max_new_tokens"], temperature=1.0, top_k=0, top_p=1.0, stop_ids=model.stop_ids,
            samples=samples,
        )  # fmt: skip
        tokens, mask = (np.asarray(x) for x in jax.device_get((out.tokens, out.mask)))
        counts = mask.sum(axis=1)
        texts = [
            [np.concatenate([one.ids, tokens[at][: counts[at]]]) for at in range(n * samples, (n + 1) * samples)]
            for n, one in enumerate(some)
        ]
        said = judge.of(judge.models[0], [text for several in texts for text in several]).reshape(len(some), samples)
        said = (said - judge.models[0].mean) / judge.models[0].std
        best = said.argmax(axis=1)
        places = np.arange(len(some)) * samples + best
        for one, at in zip(some, places, strict=True):
            text = model.tokenizer.decode(tokens[at][: counts[at]].tolist(), skip_special=True).strip()
            each["rewards"].append(float(check(one.row, text)))
        each["learned"] += said[np.arange(len(some)), best].tolist()
        width = -(-max(len(one.ids) for one in asked) // 32) * 32
        batch = prompts.collate([[one] for one in some], length=width)
        taken = tokens[places][:, None], mask[places][:, None]
        rows = jax.tree.map(jnp.asarray, layout.arrange(batch.tokens, batch.segments, *taken))
        mine, first_, plain = (_logps(m.params, rows, config=model.config) for m in (model, start, base))
        each["kls"] += (mine - first_).tolist()
        each["base_nats"] += (-plain).tolist()
        each["tokens"] += counts[places].tolist()
    return _facts({name: np.array(values, np.float64) for name, values in each.items()}, samples)


@functools.partial(jax.jit, static_argnames="config")
def _logps(params: Any, rows: layout.Rows, *, config: ModelConfig) -> jax.Array:
    """Returns the log-probability of every completion of rows of one, [P]."""
    hidden = layout.hidden(params, rows, config)
    return jnp.sum(layout.logps(params, hidden, rows, config, temperature=1.0).logps, axis=(1, 2))


def _facts(each: dict[str, np.ndarray], samples: int) -> dict[str, Any]:
    return {
        **each,
        "reward": float(each["rewards"].mean()),
        "learned_reward": float(each["learned"].mean()),
        "kl": groups.kl_of_best(samples) if samples > 1 else float(each["kls"].mean()),
        "perplexity": math.exp(each["base_nats"].sum() / each["tokens"].sum()),
        "length": float(each["tokens"].mean()),
    }


def by_method(rows: Sequence[Mapping[str, Any]], spread: float) -> list[dict[str, Any]]:
    """Returns one entry a method: means over its seeds, an interval over prompts, the gain in spreads of the start."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        by_prompt = np.mean([row["rewards"] for row in own], axis=0)
        mean = lambda name, own=own: float(np.mean([row[name] for row in own]))
        found.append(
            {
                "method": method,
                "seeds": len(own),
                "reward": mean("reward"),
                "reward_interval": interval(by_prompt),
                "reward_of_seeds": [row["reward"] for row in own],
                "gain_in_std": (mean("reward") - rows[0]["reward"]) / spread if spread else math.nan,
                "learned_reward": mean("learned_reward"),
                "kl": mean("kl"),
                "kl_of_seeds": [row["kl"] for row in own],
                "perplexity_under_base": mean("perplexity"),
                "length": mean("length"),
            }
        )
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the mean, by bootstrap."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def markdown(found: Sequence[Mapping[str, Any]], count: int) -> str:
    """Returns the comparison as a table."""
    columns = ["method", "seeds", "true reward", "95 %", "gain, std of start", "learned reward", "KL, nats"]
    columns += ["perplexity, base", "tokens"]
    lines = ["# Policies of one start", "", f"One completion of each of {count} held-out prompts at temperature 1.", ""]
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for one in found:
        low, high = one["reward_interval"]
        lines.append(
            f"| {one['method']} | {one['seeds']} | {one['reward']:.2f} | {low:.2f} to {high:.2f} | "
            f"{one['gain_in_std']:+.2f} | {one['learned_reward']:.2f} | {one['kl']:.2f} | "
            f"{one['perplexity_under_base']:.2f} | {one['length']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, np.ndarray)}


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['method']}: true reward {row['reward']:.2f}, learned {row['learned_reward']:.2f}, KL {row['kl']:.2f}"
