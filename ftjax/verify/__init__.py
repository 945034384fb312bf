"""Rules that a text keeps or breaks: answers that equal, JSON that follows a schema, instructions that can be checked.

Plain Python without jax, for rewards (`rl/scores/`) and evaluation (`evals/`) alike. A rule takes the text first, never
raises on text, whatever it holds, and takes time in proportion to its length: a policy finds the text that does not.
"""
