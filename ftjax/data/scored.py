"""A data file with the scores that lie beside it, where they are of what it holds now."""

import numpy as np

from ftjax import errors
from ftjax.data import rows, scores


def attach(data: rows.DataFile) -> None:
    """Gives a file its scores and the directions of its rows' embeddings, or says why those beside it are not used."""
    if not scores.place(data.path).exists():
        return
    try:
        found = scores.of_file(data.path, None)
    except errors.UserError as refusal:
        data.unscored = str(refusal)
        return
    data.scores = found
    data.vectors = np.full((len(data.readable), found.embedding.shape[1]), np.nan, np.float32)
    embedding = found.embedding[[n for n, row in enumerate(data.rows) if row.record is not None]]
    known = np.isfinite(embedding).all(axis=1)
    if known.any():
        data.vectors[known] = scores.directions(embedding[known])
