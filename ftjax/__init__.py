"""ftjax: adapt a language model in JAX and trust the result. Importing this imports nothing else."""

__version__ = "0.1.0"
