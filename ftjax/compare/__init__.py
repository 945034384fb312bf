"""Runs side by side: which is better, how sure that is, what it cost. Read from their folders alone, without jax.

`systems` reads folders into rows and facts; `evaluations` and `votes` add benchmarks, judges and people; `findings`
puts numbers and tests to them; `words` says the verdict; `page` and `markdown` show it. To add a number of a row, write
it into held_out.jsonl (docs/formats.md); one that is to have a name and a better side is a line in `measures.KNOWN`.
"""
