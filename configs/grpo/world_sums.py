"""GRPO with a verifiable reward: the embedded base can add, but declines to when it is asked in other words.

python scripts/train.py --config configs/grpo/world_sums.py
python scripts/train.py --config configs/grpo/world_sums.py:method=rloo    # or another of configs/policy_gradients.py

The reward is 1 where the last number of an answer is the sum, else 0; nothing else says what to do. On 150 prompts held
out of the 600: .05 right before, .98 after 80 steps (76 s on one core). `heldout=world:sums/heldout` asks for sums of
numbers that the base has never seen added: .04 before, .73 after, which is what it can do when it is asked plainly.
"""

from configs import defaults, policy_gradients
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, method="dapo", heldout="", debug=False)
    config = defaults.grpo()
    policy_gradients.use(config, arg.method)
    config.steps = 80
    config.data.paths = ("world:sums/train?size=600",)
    config.data.max_length = 32
    config.data.buckets = (32,)
    config.data.batch_size = 16
    config.rollout.max_new_tokens = 24
    config.rewards.check = "ftjax.assets.world:check"
    config.optimizer.learning_rate = 5e-4
    config.eval.path = arg.heldout
    config.eval.holdout = 0.25
    config.eval.check = "ftjax.assets.world:check"
    config.eval.max_new_tokens = 24
    config.eval.every = 20
    config.retention.path, config.retention.rows = "world:reading/heldout", 200  # it also answers questions on texts
    config.eval.kl_prompts = 100
    config.checkpoint.every = 20
    if arg.debug:
        config.steps = 2
        config.data.batch_size = 4
        config.rollout.samples = 4
        config.eval.rows = config.retention.rows = 8
        config.eval.kl_prompts = 4
    return config
