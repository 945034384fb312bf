"""Functions from arrays to arrays: no config object, no tree of a whole model. To add one: a file, a signature."""
