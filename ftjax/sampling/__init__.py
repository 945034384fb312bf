"""From a prompt to tokens: `warp.py` shapes the distribution and draws, `rows.py` has the programs that read prompts
and decode, `queue.py` takes many rows through few slots, `stops.py` finds strings that end a row, `generate.py` is the
call.
"""
