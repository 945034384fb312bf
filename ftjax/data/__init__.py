"""Text -> tokens -> batches, in NumPy. Importing it imports no jax; only `loader` uses grain, when it iterates.

A row flows: `sources/` (file -> dict) -> `records` (dict -> Conversation | Completion | Text) -> `template`, `chat`
(text, and which characters the model is to write) -> `draft`, `encode` (token ids and mask, cached on disk by `cache`)
-> `pack` -> `batch` -> `loader`. `preview` shows it.
To add a file format, add a module to `sources/`; to add a chat template, add a file to `templates/`.
"""
