"""The tables of a file of answers: what is asked, of whom, and what was said; see `store`."""

from collections.abc import Iterator
import sqlite3

TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE questions (id TEXT PRIMARY KEY, kind TEXT NOT NULL, setting TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
  id TEXT NOT NULL UNIQUE, place INTEGER PRIMARY KEY, question TEXT NOT NULL REFERENCES questions,
  payload TEXT NOT NULL, search TEXT NOT NULL, wanted INTEGER NOT NULL, counted INTEGER NOT NULL DEFAULT 0);
CREATE INDEX open_items ON items (place) WHERE counted < wanted;
CREATE INDEX counts_of_items ON items (counted, wanted);
CREATE TABLE raters (name TEXT PRIMARY KEY, joined REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE tokens (hash TEXT PRIMARY KEY, rater TEXT NOT NULL REFERENCES raters, named INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE answers (
  number INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL REFERENCES items (id),
  rater TEXT NOT NULL REFERENCES raters, body TEXT, counts INTEGER NOT NULL, settles INTEGER NOT NULL,
  supersedes INTEGER REFERENCES answers, undoes INTEGER REFERENCES answers, time REAL NOT NULL, key TEXT UNIQUE);
CREATE INDEX answers_of_raters ON answers (rater, number);
CREATE INDEX answers_to_items ON answers (item, number);
CREATE TABLE standing (
  item TEXT NOT NULL, rater TEXT NOT NULL, settles INTEGER NOT NULL, number INTEGER NOT NULL REFERENCES answers,
  PRIMARY KEY (item, rater, settles)) WITHOUT ROWID;
CREATE INDEX standing_of_raters ON standing (rater, item);
CREATE VIEW given AS
  SELECT s.item, s.rater, a.number, a.body, a.counts FROM standing s JOIN answers a ON a.number = s.number
  WHERE s.settles = 0 AND a.body IS NOT NULL;
CREATE TABLE leases (item TEXT NOT NULL, rater TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (item, rater))
  WITHOUT ROWID;
CREATE TABLE seen (item TEXT NOT NULL, rater TEXT NOT NULL, time REAL NOT NULL, PRIMARY KEY (item, rater))
  WITHOUT ROWID;
CREATE TRIGGER answers_stay BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers are only added'); END;
CREATE TRIGGER answers_remain BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers are only added'); END;
"""


def names(connection: sqlite3.Connection) -> set[str]:
    """Returns the names of the tables that a file has."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def statements() -> Iterator[str]:
    """Yields the statements that make the tables: `executescript` would run them outside of the transaction."""
    statement = ""
    for line in TABLES.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
