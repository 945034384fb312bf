"""Losses as array maths: per-element values with metrics, reduced elsewhere; nothing of ftjax is imported here.

To add one, write a function with keyword-only arrays and hyper-parameters; the contract tests find it.
"""
