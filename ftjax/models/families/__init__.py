"""What Hugging Face calls an architecture, one file each, named by `model_type`; they read dictionaries, never tensors.

To add a family, write `<model_type>.py` with two functions and let the contract test them (`tests/contracts`):

- `config_from_hf(hf: dict) -> ModelConfig` reads config.json through `_hf.Keys`, which refuses by name every key that
  it was not asked about and that may change the maths: a checkpoint is run exactly or not at all;
- `names_from_hf(config) -> dict[str, Place]` says where each tensor of the checkpoint lives in our tree.

Nothing is registered: the file's name is the entry. `_hf.py` holds what the families share.
"""
