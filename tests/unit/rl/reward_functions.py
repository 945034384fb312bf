"""Reward functions as users write them, at the top of a module, where processes find them."""

import os
import time


def halves(prompts, completions, **columns):
    """TRL's form: everything by name, what is not needed swallowed."""
    assert len(prompts) == len(completions)
    assert all(len(values) == len(completions) for values in columns.values())
    return [len(text) / 2 for text in completions]


def by_text(completions):
    """What the completion says: a number, none, nan, or something that goes wrong."""
    return [answer(text) for text in completions]


def answer(text):
    special = {"none": None, "nan": float("nan"), "inf": float("inf"), "text": "good", "huge": 10**400, "yes": True}
    if text == "raise":
        raise KeyError("no such\nkey")
    return special[text] if text in special else float(text)


def alone(completions):
    """The same, called for one row at a time in a process, where it may also hang or end it."""
    assert len(completions) == 1
    if completions[0] == "hang":
        time.sleep(60)
    if completions[0] == "exit":
        os._exit(3)
    if completions[0] == "slow":
        time.sleep(0.3)
    return by_text(["0.5" if completions[0] == "slow" else completions[0]])


alone.each = True


class Counter:
    """Keeps the sizes of its calls."""

    def __init__(self):
        self.sizes = []

    def __call__(self, completions):
        self.sizes.append(len(completions))
        return by_text(completions)


def no_server(pipe):
    """A process that ends before it serves."""
    pipe.close()
    os._exit(4)


class Unloadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self):
        return broken, ()


def broken():
    raise RuntimeError("broken")
