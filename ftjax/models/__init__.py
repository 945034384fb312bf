"""One decoder, many families. To add a family, write one file in `families/`; see `docs/adding.md`."""
