"""What makes a config on preferences small enough to run in seconds. Not a config itself."""


def preferences(config):
    """Sets sizes."""
    config.steps = 4
    config.data.paths = ("world:preferences/train?size=40",)
    config.data.max_length = 128
    config.data.batch_size = 4
    config.optimizer.warmup_steps = 1
    config.eval.path = "world:preferences/heldout?size=8"
    config.eval.every = 2
    config.eval.batch_size = 4
    config.eval.max_new_tokens = 16
    config.eval.generate_batch = 8
    config.eval.samples = 2
    config.checkpoint.every = 2
    config.log.wandb = "disabled"
