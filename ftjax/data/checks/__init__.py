"""One module a rule: what may be wrong with a data file. docs/data.md describes each.

To add one, write a module, named as the rule, with `SEVERITY` ("error": training refuses the row or it does harm
beyond doubt; "warning"; "note"), `WHY` (it matters) and `FIX` (what to do), each one sentence, and
`check(data: rows.DataFile) -> Iterator[rows.Found]`. `NEEDS` names what must be given for it to run: "model" (the file
was counted by a tokenizer), "limit" (how many tokens fit), "against" (evaluation files). `repair(value) -> value`
returns a mended copy of a row, where the repair is certain, or the row itself; `removes(data)` yields lines that a
mended copy leaves out. Modules that begin with an underscore are shared by rules. Heavy imports go inside `check`.
"""
