"""One module a data format or source: where rows come from.

To add one, write a module with `accepts(path: str) -> bool` and `read(path: str) -> Iterator[tuple[str, dict]]`, which
yields `(where, row)` with `where` = "file:line" for error messages; `records.read` finds it by walking this package.
`SUFFIXES` names the endings for error messages. What a row may hold is written in `records`. Heavy imports go inside
`read`. Where one row can be bad and the next one good, `attempts` yields a `files.BadRow` in its place, which
`read` raises.
"""
