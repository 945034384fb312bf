"""Reinforcement learning from rewards: what stands between completions with scores and a loss of `losses/policy.py`.

Arrays of tokens are [B, T], a completion a row, with weights that are 1 for its tokens and 0 elsewhere; what has no
weight changes nothing and becomes 0. To add a part, write a function of arrays with keyword-only hyper-parameters.
"""
