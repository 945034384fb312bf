"""The published methods of policy gradients without a value model, as values of `loss` of `defaults.grpo`."""

from ftjax import config as args

METHODS = {
    "grpo": {"advantage": "grpo", "normaliser": "per_sequence"},  # Shao et al. 2024, without its KL penalty
    "dr_grpo": {"advantage": "centred", "normaliser": "per_length"},  # Liu et al. 2025
    "dapo": {"advantage": "grpo", "normaliser": "per_token", "clip_high": 0.28, "signal": True},  # Yu et al. 2025
    "rloo": {"advantage": "rloo", "loss": "reinforce", "normaliser": "per_length"},  # Ahmadian et al. 2024
    "reinforce_pp": {"advantage": "reinforce_plus_plus", "normaliser": "per_token"},  # Hu et al. 2025
    # Zheng et al. 2025: a ratio of whole completions, so clips a thousandth of the others'.
    "gspo": {"loss": "gspo", "normaliser": "per_sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    # MiniMax 2025: no lower bound
    "cispo": {"loss": "cispo", "normaliser": "per_token", "clip_low": 1.0, "clip_high": 4.0},
}


def use(config, method):
    """Sets the loss of a config of `defaults.grpo` to that of a method."""
    config.loss.update(METHODS[args.known("method", method, METHODS)])
