"""From a prompt to tokens: `warp.py` shapes the distribution, `generate.py` runs prefill and decoding."""
