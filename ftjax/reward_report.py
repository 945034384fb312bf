"""What a reward model leaves behind at the end of its run: its normalisation, and a report on held-out pairs."""

from collections.abc import Iterable
import itertools
from typing import Any

import numpy as np

from ftjax import hosts
from ftjax.data.candidates import Candidates
from ftjax.errors import UserError
from ftjax.evals import preference
from ftjax.experiment import Experiment
from ftjax.runs import plots
from ftjax.runs.folder import Folder
from ftjax.scoring import RewardModel, Scorer


def leave(x: Experiment, base: Any, trainable: Any, folder: Folder) -> dict[str, Any]:
    """Returns what the summary says of a reward model, with score.json, reward.json, reward.md and a picture written.

    The score is normalised to mean 0 and variance 1 on reference completions (Ziegler et al. 2019, section 2.1): those
    of config.normalise.path, or of the training rows. On labels alone there are no pairs to report on.
    """
    model = RewardModel(name=folder.path.name, adapters=trainable, mean=0.0, std=1.0, weight=1.0)
    scorer = Scorer(x.model_dir, x.model_config, base, (model,), x.tokenizer, x.template)
    section = x.config["normalise"]
    where = section["path"] or "completions of the training rows"
    if x.data.normalise:
        raw = scorer.score_rows(x.data.normalise, raw=True, truncate=True).each[0].astype(np.float64)
    else:
        texts = itertools.islice(_texts(itertools.chain(*x.data.train)), section["rows"])
        raw = scorer.of(model, list(texts))
    if len(raw) < 2 or not raw.std() > 0:
        raise UserError(
            f"the scores of {len(raw)} {where} have no variance; normalise on others (config.normalise.path)"
        )
    norm = {"mean": float(raw.mean()), "std": float(raw.std()), "completions": len(raw), "of": where}
    folder.json("adapter/score.json", norm)
    held = [row for row in x.data.chosen if row.pairs]
    if not held:
        return {"normalisation": norm}
    scores = iter(scorer.of(model, list(_texts(held))).tolist())
    by_row = [list(itertools.islice(scores, len(row.completions))) for row in held]
    pairs = [(n, row, better, worse) for n, row in enumerate(held) for better, worse in row.pairs]
    found = preference.report(
        np.array([by_row[n][better] for n, _, better, _ in pairs]),
        np.array([by_row[n][worse] for n, _, _, worse in pairs]),
        chosen_lengths=np.array([len(row.completions[better]) for _, row, better, _ in pairs], np.float64),
        rejected_lengths=np.array([len(row.completions[worse]) for _, row, _, worse in pairs], np.float64),
        margins=np.array([margin for row in held for margin in row.margins], np.float64),
        prompts=np.array([n for n, *_ in pairs]),
    )
    folder.json("reward.json", found)
    folder.text("reward.md", preference.markdown(found, title=f"Reward model {folder.path.name}"))
    if hosts.is_first():
        (folder.path / "plots").mkdir(exist_ok=True)
        plots.reliability(preference.curves(found), folder.path / "plots" / "reliability.png", title="Reliability")
    told = {name: found[name] for name in ("accuracy", "ece", "temperature", "ece_after_temperature")}
    return {"normalisation": norm, "reward": told}


def _texts(rows: Iterable[Candidates]) -> Iterable[np.ndarray]:
    """Yields prompt and completion of every completion."""
    for row in rows:
        for ids in row.completions:
            yield np.concatenate([row.prompt, ids])
