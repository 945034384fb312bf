"""E7 and E8: DPO, reward models and PPO on 4^6 responses that can be enumerated, with the exact reward-KL frontier.

python scripts/repro/run.py e7 e8 --frontier configs/repro/frontier.py
python scripts/repro/run.py e7 e8 --frontier configs/repro/frontier.py:debug --folder runs/repro_debug

Read by scripts/repro/frontier.py; no training run of scripts/train.py is made of it. The bounds and what they fix (the
space, the rewards' terms, pairs, betas, steps, PPO's constants) are those of papers.md. What that leaves open was
chosen on other seeds than those reported: rates and pairs a step by the accuracy on held-out pairs, PPO's rate by the
true reward it reaches. The second arm takes all pairs in every step. `debug` shows in a minute that everything works;
it passes no bound.
"""

import ml_collections

from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, debug=False)
    config = ml_collections.ConfigDict()
    config.seeds = (10, 11, 12, 13, 14)
    config.space = {"vocab": 4, "length": 6}
    config.model = {"hidden": (64, 64), "reference_head": 1.0}  # tanh layers; the size of the reference's logits
    config.gold = {"free": 3, "slope": 1.0}  # occurrences of a token without a penalty, and the penalty of each more
    config.pairs = {"count": 2000, "heldout": 4000, "sharpness": 2.0}  # chosen with sigmoid(sharpness (r_a - r_b))
    config.training = {"steps": 1500, "rate": 1e-3, "clip_norm": 1.0}  # of DPO and of the reward model
    config.batches = (256, 2000)  # pairs a step: an arm each
    config.dpo = {"betas": (0.05, 0.1, 0.5, 1.0, 5.0), "label_smoothing": 0.0}
    config.shifted = 0.1  # the beta of the DPO policy from whose pairs the judges are tried out of distribution
    config.reward_model = {"weight_decay": 0.0}
    config.ppo = {
        "betas": (0.03, 0.1, 0.3, 0.6),
        "iterations": 150,
        "batch": 256,
        "epochs": 4,
        "minibatches": 4,
        "clip": 0.2,
        "value_clip": 0.2,
        "value_coefficient": 0.1,
        "gamma": 1.0,
        "lam": 0.95,
        "rate": 3e-3,
        "clip_norm": 1.0,
    }
    config.adaptive = {"target": 2.0, "start": 0.3, "gain": 0.1, "horizon": 10_000.0}
    config.calibration = {"bins": 10}
    if arg.debug:
        config.seeds = (0, 1)
        config.space = {"vocab": 3, "length": 3}
        config.training.steps = 20
        config.batches = (50, 200)
        config.pairs = {"count": 200, "heldout": 200, "sharpness": 2.0}
        config.ppo.iterations, config.ppo.batch = 5, 32
    return config
