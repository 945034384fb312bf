"""One module a kind of question: what an answer may be, what its rater sees, and when two answers agree.

To add one, write a module `NAME.py` here with seven functions, and `pages/NAME.js` (see `pages/app.js`):

- `shown(item, question, rater, answer)` returns what the page gets, JSON-ready; `answer` is one that was given (the
  rater's earlier one, or in a conflict somebody's), or None. What a rater must not know (which model wrote an answer)
  stays out of it; an order that is shuffled depends on item and rater alone, so a reload keeps it.
- `check(item, question, rater, answer)` returns the answer as it is kept, or raises a UserError that says to the rater
  what is wrong with it.
- `counts(answer)` tells whether it is one; False where the rater passed, so that another one is asked.
- `labels(answer)` returns its labels by name, texts or numbers: {"decision": "accept"}, {"accuracy": 4}.
- `metrics(question)` returns how each label is measured: nominal, ordinal, interval or ratio.
- `agree(one, other)` tells whether two answers mean the same; where not, somebody has to settle it.
- `line(item)` returns one line for lists.

An eighth, `own(answer)`, is for a kind whose labels would tell a rater little of their own answer in a list. A ninth,
`told(answer)`, is for one whose answers hold what a browser cannot read or would change (numbers of a row): it returns
what the page gets of an answer.

`tests/contracts/test_kinds.py` asks for a sample of each.
"""
