"""One module a rule: what may be wrong with a data file. docs/data.md describes each.

To add one, write a module, named as the rule, with `SEVERITY` ("error": training refuses the row or it does harm
beyond doubt; "warning"; "note"), `WHY` (it matters) and `FIX` (what to do), each one sentence, and
`check(data: rows.DataFile) -> Iterator[rows.Found]`. `NEEDS = ("model",)` or `("against",)` runs it only where the file
was counted by a model's tokenizer, or evaluation files were given. `repair(value) -> value` returns a mended copy of a
row, where the repair is certain, or the row itself. Modules that begin with an underscore are shared by rules. Heavy
imports go inside `check`.
"""
