"""Losses of pairs that config files know by name, with what suits each: what to be held against, beta, smoothing.

To add one: an entry where it needs something else than `defaults.dpo` has. A config file calls `use`.
"""

WITHOUT_REFERENCE = ("simpo", "cpo", "orpo", "sft")
BETA = {"ipo": 0.5, "sigmoid_norm": 2.0, "simpo": 2.0, "orpo": 0.5}  # of losses of means over tokens
SMOOTHING = {"exo_pair": 1e-3, "robust": 0.1}


def changes(name):
    """Returns what a config of `defaults.dpo` changes for one loss."""
    return {
        "loss.names": (name,),
        "loss.beta": BETA.get(name, 0.1),
        "loss.label_smoothing": SMOOTHING.get(name, 0.0),
        "reference.kind": "none" if name in WITHOUT_REFERENCE else "base",
    }


def use(config, name):
    """Sets the loss of a config."""
    for key, value in changes(name).items():
        section, field = key.split(".")
        config[section][field] = value
