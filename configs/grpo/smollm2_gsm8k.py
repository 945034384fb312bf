"""GRPO of SmolLM2-135M on grade-school sums in words: the reward is the number at the end. For a GPU.

python scripts/train.py --config configs/grpo/smollm2_gsm8k.py:data=gsm8k_train.jsonl
python scripts/train.py --config configs/grpo/smollm2_gsm8k.py:data=gsm8k_train.jsonl,debug     # two steps, on a CPU

`data`: lines with `question` and `answer` as GSM8K has them; 5 % are held out. `make smollm2` gets the model.
One answer in many is right at the start, so most groups say nothing at first: DAPO's clip and mask are on.
"""

from configs import defaults, models, policy_gradients
from ftjax import config as args


def get_config(arg=""):
    arg = args.parse(arg, data="", model="smollm2-135m", debug=False)
    config = defaults.grpo()
    policy_gradients.use(config, "dapo")
    models.use(config, arg.model)
    config.model.dtype = config.model.weights = "bfloat16"
    config.model.remat = "dots"
    config.adapter.rank, config.adapter.alpha = 32, 64.0
    config.steps = 500
    config.data.paths = (arg.data,) if arg.data else ()
    config.data.max_length = 256
    config.data.batch_size = 32
    config.microbatches = 4
    config.rollout.samples = 16
    config.rollout.max_new_tokens = 256
    config.rewards.names = ("numeric",)
    config.rewards.overlong, config.rewards.overlong_buffer = 256, 64
    config.optimizer.learning_rate = 5e-5
    config.eval.path = ""
    config.eval.holdout = 0.05
    config.eval.check = "tasks.numeric"
    config.eval.max_new_tokens = 256
    config.eval.kl_prompts = 64
    config.eval.every = 50
    if arg.debug:
        config.model.dtype = config.model.weights = "float32"
        config.steps, config.microbatches = 2, 1
        config.data.batch_size, config.rollout.samples, config.rollout.max_new_tokens = 2, 4, 32
        config.rewards.overlong, config.rewards.overlong_buffer = 32, 8
        config.eval.rows, config.eval.max_new_tokens, config.eval.kl_prompts = 4, 16, 2
        config.eval.generate_batch, config.eval.batch_size = 4, 2
    return config
