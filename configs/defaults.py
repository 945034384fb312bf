"""The home of default values, with `configs/eval/defaults.py` for what evaluations alone need.

A section is read once, by `ftjax/experiment.py`; below it nothing has a default.

To add an algorithm: one function here that returns a locked ConfigDict. An experiment file calls it and changes values.
"""

import ml_collections


def sft() -> ml_collections.ConfigDict:
    """Supervised fine-tuning with LoRA. Learning rate and ranks follow common practice; sizes suit a small machine."""
    config = ml_collections.ConfigDict()
    config.algorithm = "sft"
    config.seed = 0
    config.steps = 200  # 0: one epoch

    config.model = {
        "path": "base",  # the embedded base, or a Hugging Face folder
        "dtype": "float32",  # of activations: float32 | bfloat16
        "weights": "float32",  # of the frozen base in memory: float32 | bfloat16
        "remat": "none",  # what the backward pass recomputes: none | dots | full
        "unroll": 1,  # layers in one iteration of the scan over layers
    }
    config.quant = {
        "format": "none",  # of the frozen base: none | nf4 | nf4-dq | int4 | int4-asym | int8 | fp8 | fp4
        "leaves": r"blocks\.\w+_proj",  # regex of the paths that it holds for; the others stay dense
        "group": 0,  # inputs that share a scale; 0: the format's own (64 in four bits)
    }
    config.adapter = {
        "name": "lora",  # lora | dora | pissa | olora | loftq | ia3 | vera | none (full fine-tuning)
        "path": "",  # a PEFT folder to go on from, of this kind, targets and rank; empty: new adapters
        "targets": "all-linear",  # or a regex of whole paths, or names as in PEFT: "q_proj,v_proj"; also embed_tokens
        "rank": 8,
        "alpha": 16.0,  # the update is scaled by alpha / rank
        "dropout": 0.0,
        "rslora": False,  # scale by alpha / sqrt(rank)
        "rank_pattern": "",  # other ranks for some weights: "q_proj=16,down_proj=4"
        "alpha_pattern": "",
        "feedforward": "down_proj",  # ia3: targets whose inputs are scaled, not their outputs
        "d_initial": 0.1,  # vera
        "projection_key": 0,  # vera: seed of the shared matrices, PEFT's projection_prng_key
        "modules_to_save": (),  # full copies that train as well: embed_tokens, lm_head
        "trainable_tokens": (),  # ids of tokens whose rows of the embedding train as well
        "ensure_weight_tying": False,  # a head that is the embedding sees what is trained on embed_tokens
    }
    config.neftune_alpha = 0.0  # noise on the embeddings while training (NEFTune; 5 is usual); 0: none
    config.data = {
        "paths": ("world:format/train",),  # files, folders, or sets of the made world
        "weights": (),  # shares of a mixture, one a path; empty: every row counts the same
        "template": "",  # a shipped chat template or a .jinja file; empty: the tokenizer's own
        "train_on": "assistant",  # assistant | last_assistant | all
        "max_length": 512,  # tokens a row
        "truncation": "drop",  # what happens to longer rows: drop | truncate | error
        "layout": "packed",  # packed | padded
        "batch_size": 8,  # rows of a global batch (packed: rows of max_length that hold several examples)
        "buckets": (64, 128, 256, 512, 1024, 2048),  # lengths of padded batches
    }
    config.optimizer = {
        "name": "adamw",  # adamw | adamw8bit | adam_tf | sgd | adafactor | lion | muon
        "offload": "none",  # host: moments lie in the host's memory and visit the device for the update
        "learning_rate": 2e-4,
        "schedule": "cosine",  # constant | linear | cosine | wsd
        "warmup_steps": 10,
        "end_ratio": 0.1,  # final learning rate as a share of the peak
        "decay_share": 0.2,  # wsd: share of the steps in which the rate falls
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "momentum": 0.95,  # sgd, muon
        "weight_decay": 0.0,
        "decay": r".*_proj.*|embed_tokens|lm_head",  # regex of the paths that weight_decay shrinks
        "clip_norm": 1.0,  # 0: no clipping
        "lora_plus_ratio": 1.0,  # learning rate of LoRA's B over that of A (LoRA+)
        "lora_plus_embedding": 1e-6,  # LoRA+: learning rate of a LoRA on the embedding
    }
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}  # devices an axis; -1: what is left
    config.microbatches = 1  # parts of a batch that are computed one after the other
    config.stop = {  # 0: never
        # A loss of so many medians (and 1 nat more) ends the run after 10 steps that high, one above 20 nats at once.
        "spike_factor": 10.0,
        "patience": 0,  # evaluations without improvement
    }
    config.eval = {
        "path": "world:format/heldout",  # empty: rows held out of the training data
        "holdout": 0.05,  # their share
        "rows": 200,  # at most
        "every": 50,  # steps between evaluations of the loss; 0: only before and after
        "batch_size": 8,
        "check": "ftjax.assets.world:check",  # scores an answer; empty: no answers are generated
        "max_new_tokens": 64,
        "generate_batch": 50,
        "samples": 5,  # answers shown during training and at the end
    }
    config.retention = {  # what must not be forgotten, measured before and after as well
        "path": "world:corpus/heldout?size=100",  # chats or texts that training is not about; empty: none
        "rows": 100,  # at most
        "max_length": 512,  # tokens of a row; longer ones are left out
        "check": "",  # as eval.check; empty: loss alone
    }
    config.log = {
        "every": 1,
        "writers": ("console", "jsonl", "wandb"),  # also tensorboard
        "project": "ftjax",
        "wandb": "auto",  # auto: online where logged in, else offline; online | offline | disabled
    }
    config.checkpoint = {
        "every": 50,
        "keep_last": 2,
        "use": "last",  # which checkpoint becomes the adapter: last | best (by eval_loss)
    }
    return config.lock()


def dpo() -> ml_collections.ConfigDict:
    """Direct preference optimisation, or another loss of pairs, with LoRA: beta of the paper, the rest of `sft`."""
    config = sft().unlock()
    config.algorithm = "dpo"
    del config.neftune_alpha
    config.loss = {
        "names": ("dpo",),  # summed; docs/preferences.md has them all
        "weights": (),  # of the sum, one a name; empty: 1 each
        "beta": 0.1,
        "label_smoothing": 0.0,
        "tau": 0.05,  # discopop
        "gamma": 0.5,  # simpo
        "cpo_alpha": 1.0,
        "divergence": "reverse_kl",  # reverse_kl | forward_kl | js_divergence | alpha_divergence
        "alpha": 0.5,  # alpha_divergence
        "ld_alpha": 1.0,  # weight of tokens past the shorter completion of a pair (LD-DPO); 1: none is lighter
        "wpo": False,  # pairs count by how likely the policy is to write them (WPO)
    }
    config.reference = _reference("base")
    _preferences(config)
    return config.lock()


def kto() -> ml_collections.ConfigDict:
    """KTO: completions that are labelled desirable or not; pairs are taken apart."""
    config = dpo().unlock()
    config.algorithm = "kto"
    config.loss = {
        "name": "kto",  # kto | apo_zero_unpaired
        "beta": 0.1,
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
    }
    return config.lock()


def reward() -> ml_collections.ConfigDict:
    """A reward model: a head of one number beside LoRA, on pairs or labels. Train it for one epoch."""
    config = sft().unlock()
    config.algorithm = "reward_model"
    del config.neftune_alpha
    config.loss = {
        "name": "bradley_terry",  # bradley_terry | pointwise (labels between 0 and 1)
        "margin_scale": 0.0,  # of the margins in the data; 0: they are not used
        "centring": 0.01,  # weight of (chosen + rejected)^2
    }
    config.normalise = {
        "path": "",  # completions whose scores get mean 0 and variance 1; empty: those of the training rows
        "rows": 256,  # at most
    }
    _preferences(config)
    del config.retention, config.eval.kl_prompts  # of models that write
    config.steps = 0
    config.optimizer.learning_rate = 1e-4
    return config.lock()


def ppo() -> ml_collections.ConfigDict:
    """PPO with LoRA, a value model of its own and a KL penalty in the reward; constants of InstructGPT and TRL."""
    config = _own_samples("ppo")
    config.value = {
        "shared": False,  # a head on the policy's own trunk, instead of adapters of the value's own
        "path": "",  # a run of a reward model that the value begins as; empty: new adapters and a head of 0
        "rate_ratio": 1.0,  # learning rate of the value over that of the policy
    }
    config.loss = _penalty(0.05) | {
        "clip_low": 0.2,
        "clip_high": 0.2,
        "dual_clip": 0.0,  # largest ratio that counts where an advantage is negative (3 is usual); 0: no limit
        "value_clip": 0.2,
        "value_coefficient": 0.1,
        "gamma": 1.0,
        "lam": 0.95,
        "kl_estimator": "k1",  # of the penalty: k1 | k3
        "score_at": "last",  # token that a completion's score is paid at: last | next (the place after it, as in TRL)
        "whiten_rewards": False,
        "ddof": 0,  # of variances: 0 (OpenAI) | 1 (TRL)
        "importance_cap": 0.0,  # of the correction for a sampler that lags; 0: none
        "text_coefficient": 0.0,  # of ordinary text (data.text) in the loss: PPO-ptx
    }
    config.data.text = ""  # rows for it
    config.rollout.samples = 1
    config.updates.epochs = 4
    return config.lock()


def grpo() -> ml_collections.ConfigDict:
    """GRPO with LoRA, on policy and without a reference, as in TRL; its kin are other values of `loss`."""
    config = _own_samples("grpo")
    config.loss = _penalty(0.0) | {
        "advantage": "grpo",  # grpo | centred (Dr. GRPO) | rloo | reinforce_plus_plus
        "loss": "clipped",  # clipped | gspo | gspo_token | cispo | reinforce
        "normaliser": "per_token",  # per_token (DAPO) | per_sequence (GRPO) | per_length (Dr. GRPO)
        "clip_low": 0.2,
        "clip_high": 0.2,  # 0.28: DAPO's clip-higher
        "dual_clip": 0.0,
        "kl_in": "loss",  # loss (k3) | reward (k1, RLOO)
        "importance_cap": 0.0,
        "only_ended": False,  # completions that were cut at the length do not count
        "signal": False,  # groups of equal scores do not count (DAPO's dynamic sampling, with `groups`)
        "groups": 0,  # most groups with signal that a step learns from; 0: all
    }
    config.reference.kind = "none"
    return config.lock()


def raft() -> ml_collections.ConfigDict:
    """Rejection-sampling fine-tuning: learns the best of several completions of its own."""
    config = _own_samples("raft")
    config.loss = _penalty(0.0)
    config.reference.kind = "none"
    return config.lock()


def online_dpo() -> ml_collections.ConfigDict:
    """DPO on the best and the worst of its own completions, drawn anew in every step."""
    config = _own_samples("online_dpo")
    config.loss = _penalty(0.0) | {"name": "dpo", "beta": 0.1, "label_smoothing": 0.0, "tau": 0.05}
    return config.lock()


def _own_samples(algorithm: str) -> ml_collections.ConfigDict:
    """Returns what configs of algorithms that learn from their own samples share."""
    config = sft().unlock()
    config.algorithm = algorithm
    del config.neftune_alpha, config.data.train_on, config.data.layout
    config.steps = 100
    config.data.paths = ("world:preferences/train?size=1000",)
    config.data.batch_size = 16  # prompts of a step
    config.data.max_length = 256  # tokens of a prompt
    config.data.buckets = (32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1024, 2048)
    config.rollout = {
        "samples": 8,  # completions of each prompt
        "max_new_tokens": 64,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "stop": (),  # texts that end a completion, beside the stop tokens
        "fixed_length": False,  # draw to the end, cut at the stop token afterwards
        "stop_from": 0,  # with it: stop tokens before this place do not count
        "slots": 0,  # completions that are decoded at a time, the rest waits; 0: all
        "sync_every": 1,  # steps after which the sampler becomes the policy; 1: always
    }
    config.rewards = {
        "names": (),  # functions of docs/rewards.md, or pkg.mod:fn; the hyper-parameters of ours are the next lines
        "pattern": "",
        "schema_path": "",
        "json_credit": 0.0,
        "length_target": 0,  # tokens; 0: none
        "length_cap": 0,
        "reading": "strict",  # of instructions: strict | loose
        "credit": "share",  # of instructions: share | all
        "weights": (),  # of the sum, one a name; empty: 1 each
        "models": (),  # runs of reward models on this base
        "model_weights": (),
        "check": "",  # a check of answers as in eval.check, as a reward
        "check_weight": 1.0,
        "timeout": 10.0,  # seconds for one row of a function that is called row by row
        "workers": 2,
        "missing_end": "none",  # of a completion that does not stop: none | penalty | replace
        "missing_end_value": 1.0,  # what is taken off the score, or stands for it
        "overlong": 0,  # tokens from which a completion costs 1 more (DAPO); 0: never
        "overlong_buffer": 16,  # tokens before that over which the cost grows
    }
    config.updates = {
        "epochs": 1,
        "minibatches": 1,
        "most_approx_kl": 0.0,  # nats a token at which the updates of a step end early; 0: never
    }
    config.reference = {"kind": "base"}  # base | start (a copy of what trains as it began) | none
    config.stop = {"spike_factor": 0.0, "patience": 0, "kl": 0.0}  # kl: nats a completion that end the run; 0: never
    config.optimizer.update(learning_rate=1e-4, schedule="constant", warmup_steps=0)
    config.eval.update(path="world:preferences/heldout?size=200", check="ftjax.assets.world:reward", every=25)
    config.eval.kl_prompts = 0
    config.log.samples = 10  # steps between tables of completions with their scores; 0: never
    return config


def _penalty(coefficient: float) -> dict[str, object]:
    """Returns how the KL to the reference is penalised."""
    return {
        "kl_coefficient": coefficient,
        "kl_controller": "fixed",  # fixed | paper (Ziegler et al. 2019, section 2.2) | code (as they wrote it)
        "kl_target": 6.0,  # nats a completion that a controller aims at
        "kl_gain": 0.1,  # paper
        "kl_horizon": 10000.0,  # code
        "normalise_scores": False,  # to mean 0 and variance 1, by all scores so far
    }


def _preferences(config: ml_collections.ConfigDict) -> None:
    """Sets what is read and held out where a config learns from preferences."""
    del config.data.train_on
    # A loss of pairs comes near 0 or goes below, so ten times the median of the last ones is nothing unusual.
    config.stop.spike_factor = 0.0
    config.data.paths = ("world:preferences/train?size=1000",)
    config.data.equal = "drop"  # pairs that differ in white space alone: drop | error
    config.data.prefix = "shared"  # a prompt is in a row once for all its completions, or "repeated" for each
    config.data.row_length = 0  # of a packed row: prompts and all their completions; 0: as the largest needs
    config.eval.path = "world:preferences/heldout?size=200"
    config.eval.check = "ftjax.assets.world:reward"
    config.eval.kl_prompts = 0  # prompts, one sample each, on which the KL to the reference is measured; 0: not at all


def _reference(kind: str) -> dict[str, object]:
    """Returns the policy that is held against."""
    return {
        "kind": kind,  # base | start (a copy of what trains as it began) | none
        "model": "",  # another model, with cache; empty: the base
        "cache": False,  # its log-probabilities are computed before training and kept on disk; it then never runs
        "sync_every": 0,  # steps after which the copy moves towards the policy (TR-DPO); 0: never
        "sync_alpha": 0.6,  # by how much of the way
    }


def evaluate() -> ml_collections.ConfigDict:
    """Measuring a model on held-out rows, as a run measures itself: the sections are those of `sft`."""
    train = sft()
    config = ml_collections.ConfigDict()
    config.seed = train.seed  # with data.holdout: which rows a run has held out
    config.model = {
        "run": "",  # a run folder: its base with its adapter, or its fully fine-tuned model; else the next two
        "path": train.model.path,
        "adapter": "",  # a PEFT folder; empty: the model alone
        "dtype": train.model.dtype,
        "weights": train.model.weights,
    }
    config.quant = train.quant  # of model.path; a run brings its own
    config.data = {
        "path": train.eval.path,
        "holdout": 0.0,  # the share that a run with this seed has held out of the file; 0: the file has no other rows
    } | {name: train.data[name] for name in ("template", "train_on", "max_length", "truncation")}
    kept = ("batch_size", "check", "max_new_tokens", "generate_batch", "samples")
    config.eval = {"rows": 0} | {name: train.eval[name] for name in kept}  # rows: at most; 0: all
    return config.lock()
