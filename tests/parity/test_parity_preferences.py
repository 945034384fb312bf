"""Live against TRL: twenty steps of its trainers from the same text, weights, adapter and optimizer, step for step.

Both sides read the same rows, in order, and make their own tokens of them, which are compared too. Everything is
float32, without dropout; AdamW at a constant rate, clipped at norm 1 as every config here is. Compared is every metric
that both sides log under one name, but for `entropy` and `mean_token_accuracy` of DPO: TRL's are means over the tokens
of a batch (the entropy over rejected ones too), ours are means over pairs of means over the tokens of the chosen one.
"""

import string
from typing import Any, NamedTuple
import warnings

import datasets
import jax
import numpy as np
import peft as their_peft
import pytest
from safetensors import numpy as safetensors_numpy
import torch
import transformers

from configs import defaults
from ftjax import objective
from ftjax.checkpoint import hf_import, peft
from ftjax.data import candidates, preference_batch, preferences, template, tokenizer
from ftjax.models import params
from ftjax.train import optimizer, state, step
from tests import bases

with warnings.catch_warnings():  # while importing only: warnings are errors here, and PyTorch packages give some
    warnings.simplefilter("ignore")
    import trl
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
STEPS, PAIRS, BETA, RATE = 20, 4, 0.5, 2e-3
# Nothing follows the stop token of an answer: TRL trains on white space there, which we do not.
TEMPLATE = bases.TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")
OF_ALL = {"loss", "grad_norm", "learning_rate"}
OF_LABELS = {"rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"}
OF_PAIRS = OF_LABELS | {"rewards/accuracies"}


@pytest.fixture(autouse=True)
def one_thread():
    """Its matrices are so small that PyTorch's threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(seed: int, *, prompt: str = "", chosen: tuple[int, int] = (1, 6)) -> list[dict[str, str]]:
    """Returns rows of text whose prompts are some words, or one letter out of `prompt`, and answers `chosen` words.

    Answers begin with a space, so a tokenizer that knows no cut does not merge over it either.
    """
    rng = np.random.default_rng(seed)
    words = lambda least, below: " ".join(rng.choice(bases.WORDS, rng.integers(least, below)))
    ask = (lambda: str(rng.choice(list(prompt)))) if prompt else (lambda: f"Say {words(1, 5)}:")
    return [
        {"prompt": ask(), "chosen": f" {words(*chosen)}.", "rejected": f" {words(1, 6)}!"} for _ in range(STEPS * PAIRS)
    ]


def as_chats(rows: list[dict[str, str]]) -> list[dict[str, list[dict[str, str]]]]:
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return [{name: [{"role": role, "content": row[name].strip()}] for name, role in roles.items()} for row in rows]


class Ours(NamedTuple):
    """Our side of a comparison, before its first step."""

    folder: Any  # of the base
    config: Any  # of the experiment
    model: Any  # its config
    base: Any
    step: Any
    state: Any
    found: list[candidates.Candidates]


def prepare(tmp_path, c, rows, *, fresh: bool, **changes) -> Ours:
    """Returns what a config with these changes begins with; an adapter that is not fresh has a random B."""
    with c.unlocked():
        c.optimizer.update(learning_rate=RATE, schedule="constant", warmup_steps=0)
        for name, value in changes.items():
            section, _, key = name.partition("__")
            c[section][key] = value
    folder = bases.write_base(tmp_path / "base", template=TEMPLATE)
    model, base = hf_import.load(folder)
    o = c.optimizer.to_dict()
    shape = ("schedule", "learning_rate", "warmup_steps", "end_ratio", "decay_share")
    rate = optimizer.schedule(steps=STEPS, **{name: o.pop(name) for name in shape})
    del o["offload"], o["lora_plus_embedding"]
    chain = optimizer.build(rate, **o)
    algorithm = objective.build(c.to_dict(), params.abstract(model, "float32"), model).algorithm
    begun = state.begin(algorithm, base, chain, jax.random.key(3))
    if not fresh:
        rng = np.random.default_rng(4)
        noise = lambda path, leaf: rng.normal(0, 0.05, leaf.shape).astype(np.float32) if is_b(path) else leaf
        begun = begun.replace(trainable=jax.tree_util.tree_map_with_path(noise, begun.trainable))
    tok = tokenizer.load(folder)
    found, _ = candidates.encode_preferences(
        [preferences.from_row(row, f"rows:{n}") for n, row in enumerate(rows, start=1)], tok,
        made=template.load(None, tok), max_length=None, truncation="error", equal="error", mismatched=False,
    )  # fmt: skip
    run = jax.jit(step.make(algorithm, chain, rate, microbatches=1))
    return Ours(folder, c, model, base, run, begun, found)


def is_b(path) -> bool:
    return getattr(path[-1], "name", None) == "b"


def curve(ours: Ours, *, prefix: str, of_row: int = 1) -> list[dict[str, float]]:
    """Returns the metrics of every step on batches that have `of_row` prompts in a row."""
    count = len(ours.found) // STEPS
    layout = "padded" if of_row == 1 else "packed"
    length = of_row * max(one.size(prefix) for one in ours.found)
    collator = preference_batch.collator([ours.found], layout=layout, length=length, prefix=prefix)
    now, told = ours.state, []
    for first in range(0, len(ours.found), count):
        members = [ours.found[n : n + of_row] for n in range(first, first + count, of_row)]
        now, metrics = ours.step(now, ours.base, collator.collate(members, length=length), np.float32(np.inf))
        told.append({name: float(value) for name, value in metrics.items()})
    return told


def train(ours: Ours, tmp_path, trainer_of, config_of, rows, *, model_of, task: str, **settings):
    """Returns a trainer of TRL after its last step, which began with our adapter (and head)."""
    o, a = ours.config.optimizer, ours.config.adapter
    arguments = config_of(
        output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=len(rows) // STEPS,
        train_sampling_strategy="sequential", learning_rate=o.learning_rate, lr_scheduler_type="constant",
        optim="adamw_torch", adam_beta1=o.b1, adam_beta2=o.b2, adam_epsilon=o.eps, weight_decay=o.weight_decay,
        max_grad_norm=o.clip_norm, logging_steps=1, bf16=False, gradient_checkpointing=False, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True, **settings,
    )  # fmt: skip
    made = trainer_of(
        model=model_of(ours.folder),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(ours.folder),
        peft_config=their_peft.LoraConfig(
            task_type=task, r=a.rank, lora_alpha=a.alpha, lora_dropout=0.0, target_modules=a.targets
        ),
    )
    made.remove_callback(transformers.PrinterCallback)
    peft.save(tmp_path / "adapter", ours.state.trainable, ours.model, None)
    tensors = safetensors_numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    theirs = their_peft.get_peft_model_state_dict(made.model, save_embedding_layers=False)
    assert {name: value.shape for name, value in tensors.items()} == {n: tuple(v.shape) for n, v in theirs.items()}
    their_peft.set_peft_model_state_dict(made.model, {n: torch.from_numpy(v.copy()) for n, v in tensors.items()})
    made.train()
    return made


def causal(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def scoring(folder):
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)


def same_tokens(ours: Ours, trainer, sequences) -> None:
    """Checks prompts (where TRL tells them apart) and whole sequences against those of a row of TRL's data."""
    for one, row in zip(ours.found, trainer.train_dataset, strict=True):
        prompt = row.get("prompt_ids", row.get("prompt_input_ids"))
        assert prompt is None or one.prompt.tolist() == prompt
        assert [[*one.prompt.tolist(), *ids.tolist()] for ids in one.completions] == sequences(row)


def of_dpo(row) -> list[list[int]]:
    return [row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")]


def agree(ours: list[dict[str, float]], trainer, names: set[str], *, but_first: frozenset[str] = frozenset()) -> None:
    """Checks the metrics `names` of every step, those of `but_first` from the second on.

    5e-5 is twice what rounding makes of log-probabilities near -40; a bias correction of Adam in float32 exceeds it.
    """
    theirs = [told for told in trainer.state.log_history if "loss" in told]
    assert len(ours) == len(theirs) == STEPS
    assert names == (ours[0].keys() & theirs[0].keys()) - {"entropy", "mean_token_accuracy"}
    for name in sorted(names):
        start = int(name in but_first)
        mine, other = ([told[name] for told in found[start:]] for found in (ours, theirs))
        np.testing.assert_allclose(mine, other, rtol=0, atol=5e-5, err_msg=name)
    assert ours[-1]["applied"] == 1


def test_the_curve_of_dpo_on_packed_chats_that_share_their_prompts_is_that_of_trl(tmp_path):
    """It begins as users begin, with policy and reference equal: which of two equal rewards is higher is no metric."""
    rows = as_chats(pairs(0))
    ours = prepare(tmp_path, defaults.dpo(), rows, fresh=True, loss__beta=BETA)
    mine = curve(ours, prefix="shared", of_row=2)
    trainer = train(
        ours, tmp_path, trl.DPOTrainer, trl.DPOConfig, rows, model_of=causal, task="CAUSAL_LM", beta=BETA,
        loss_type=["sigmoid"],
    )  # fmt: skip
    same_tokens(ours, trainer, of_dpo)
    agree(mine, trainer, OF_ALL | OF_PAIRS, but_first=frozenset({"rewards/accuracies"}))
    np.testing.assert_allclose(mine[0]["loss"], np.log(2), rtol=1e-6)


def test_the_curve_of_ipo_on_text_that_repeats_its_prompts_is_that_of_trl(tmp_path):
    rows = pairs(1)
    ours = prepare(tmp_path, defaults.dpo(), rows, fresh=False, loss__beta=BETA, loss__names=("ipo",), loss__weights=())
    mine = curve(ours, prefix="repeated")
    trainer = train(
        ours, tmp_path, trl.DPOTrainer, trl.DPOConfig, rows, model_of=causal, task="CAUSAL_LM", beta=BETA,
        loss_type=["ipo"],
    )  # fmt: skip
    same_tokens(ours, trainer, of_dpo)
    agree(mine, trainer, OF_ALL | OF_PAIRS)


def test_the_curve_of_orpo_is_that_of_trl_where_both_mean_the_same_tokens(tmp_path):
    """TRL's nll is one mean over the chosen rows of a batch, prompts too, but for their first token; ours is the
    paper's, of the completion alone. They are one number where prompts are one token and chosen completions equally
    long, so these are; the rejected ones are of any length.
    """
    rows = pairs(2, prompt=string.ascii_uppercase, chosen=(4, 5))
    ours = prepare(
        tmp_path, defaults.dpo(), rows, fresh=False, loss__beta=BETA, loss__names=("orpo",), reference__kind="none"
    )
    assert {len(one.prompt) for one in ours.found} == {1}
    assert len({len(one.completions[0]) for one in ours.found}) == 1
    mine = curve(ours, prefix="shared")
    trainer = train(
        ours, tmp_path, ORPOTrainer, ORPOConfig, rows, model_of=causal, task="CAUSAL_LM", beta=BETA, max_length=128
    )  # fmt: skip
    same_tokens(ours, trainer, lambda row: [row["chosen_input_ids"], row["rejected_input_ids"]])
    agree(mine, trainer, OF_ALL | OF_PAIRS | {"nll_loss", "log_odds_ratio", "log_odds_chosen"})


def test_the_curve_of_kto_is_that_of_trl(tmp_path):
    """Its mismatched completions are those of the row before in the batch, which ours are given: partners are data."""
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen" or n % 3 == 0}
        for n, row in enumerate(pairs(3))
        for side in ("chosen", "rejected")
    ]
    ours = prepare(
        tmp_path, defaults.kto(), rows, fresh=False, loss__beta=BETA, loss__desirable_weight=1.2,
        loss__undesirable_weight=0.7,
    )  # fmt: skip
    count = len(rows) // STEPS
    for first in range(0, len(rows), count):
        part = ours.found[first : first + count]
        ours.found[first : first + count] = [
            one._replace(mismatched=other.completions, mismatched_masks=other.masks)
            for one, other in zip(part, part[-1:] + part[:-1], strict=True)
        ]
    mine = curve(ours, prefix="shared", of_row=2)
    trainer = train(
        ours, tmp_path, trl.KTOTrainer, trl.KTOConfig, rows, model_of=causal, task="CAUSAL_LM", beta=BETA,
        desirable_weight=1.2, undesirable_weight=0.7,
    )  # fmt: skip
    same_tokens(ours, trainer, lambda row: [row["prompt_ids"] + row["completion_ids"]])
    assert [one.mismatched[0].tolist() for one in ours.found] == list(trainer.train_dataset["KL_completion_ids"])
    assert sum(told["kl"] > 0 for told in mine) > STEPS / 4  # below 0 it would say nothing
    agree(mine, trainer, OF_ALL | OF_LABELS | {"kl"})


@pytest.mark.parametrize("centring", [0.0, 0.05])
def test_the_curve_of_a_reward_model_is_that_of_trl(centring, tmp_path):
    """The centred one has margins too, on chats that share their prompts; the other one is on text."""
    rows, settings = pairs(4), {}
    if centring:
        rng = np.random.default_rng(5)
        rows = [row | {"margin": float(rng.uniform(0, 2))} for row in as_chats(rows)]
        settings["center_rewards_coefficient"] = centring
    ours = prepare(
        tmp_path, defaults.reward(), rows, fresh=True, loss__centring=centring, loss__margin_scale=float(centring > 0)
    )
    mine = curve(ours, prefix="shared" if centring else "repeated")
    trainer = train(
        ours, tmp_path, trl.RewardTrainer, trl.RewardConfig, rows, model_of=scoring, task="SEQ_CLS", **settings
    )
    same_tokens(ours, trainer, lambda row: [row["chosen_ids"], row["rejected_ids"]])
    agree(mine, trainer, OF_ALL | {"accuracy", "margin", "mean_reward"})
