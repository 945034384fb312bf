"""Pages on which persons answer: questions on items, from raters by name, kept in a file that loses nothing.

`store` keeps items, questions, raters and answers in SQLite; `assign` says who gets which item next; `kinds/` has one
module a kind of question; `server` serves a `Campaign` with the assets of `pages/`; `doors` says who may enter, and
`addresses` where; `agreement` tells how far raters agree. What is asked of whom is built on these: `review` asks for
the rows of a data file. Each is a file that fills a store, names its title and guidelines, and makes a file of the
answers.

To add one, such as a rating of models: write the kind if there is none that fits (see `kinds/`), a file beside
`review.py` that adds items and returns a `server.Campaign`, and a verb or script that calls `server.serve`.
"""
