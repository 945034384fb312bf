"""E9: reward models of few pairs, optimised until the true reward falls, on 6^6 responses that can be enumerated.

python scripts/repro/run.py e9 --overoptimised configs/repro/overoptimised.py
python scripts/repro/run.py e9 --overoptimised configs/repro/overoptimised.py:debug --folder runs/repro_debug

Read by scripts/repro/overoptimised.py; no training run of scripts/train.py is made of it. The space, the shape of the
true reward, hard labels, the numbers of pairs, seeds and bounds are those of papers.md. What that leaves open (the size
of `unary`, the reward model's steps, rate, batch and weight decay) was chosen on seeds 100 to 103, where the true
reward falls at 100 pairs and does not at 50,000; the seeds that are reported had no part in it. `debug` shows in a
minute that everything works; it passes no bound.
"""

import ml_collections

from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, debug=False)
    config = ml_collections.ConfigDict()
    config.seeds = (0, 1, 2)
    config.space = {"vocab": 6, "length": 6}
    config.model = {"hidden": (64, 64), "reference_head": 1.0}  # tanh layers; the size of the reference's logits
    config.gold = {
        "unary": 0.3,  # size of the worth of each token at each place
        "free": 2,  # occurrences of token 0 that are worth 1 each
        "slope": 1.6,  # what each more takes off
        "rare": 0.005,  # chance of more under the reference, whose token 0 is made as unlikely as that needs
    }
    config.counts = (100, 300, 1_000, 10_000, 50_000)  # pairs, a reward model each
    config.reward_model = {"steps": 3000, "batch": 512, "rate": 3e-3, "clip_norm": 1.0, "weight_decay": 1e-4}
    config.betas = {"first": 30.0, "last": 1e-3, "count": 150}  # tilts by the proxy, whose deviation is 1
    config.best_of = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    if arg.debug:
        config.seeds = (0, 1)
        config.space = {"vocab": 4, "length": 4}
        config.counts = (50, 100, 200, 10_000)
        config.reward_model.steps = 20
    return config
