"""The made world (`world`) and the small base model trained on its text (`base/`, from scripts/make_base.py).

To add a kind of text: rows.py. To add a task set with its checker: world.py. Then train the base again.
"""
