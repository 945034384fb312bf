"""How much answers overlap with references: BLEU, chrF, ROUGE by their libraries; exact match; F1 of words.

`hypotheses` are the answers, `references` one text for each, or several of which the best or (BLEU, chrF) all count.
BLEU and chrF run from 0 to 100, the others from 0 to 1. To add a metric: a function of the two that returns a
`metric.Score`. BLEU by any other tokens than sacrebleu's is another number: never compare scores whose signatures
differ.
"""

from collections import Counter
from collections.abc import Callable, Sequence
import importlib.metadata
import re
import string
from typing import Any

from ftjax.evals import extra, metric

References = Sequence[str | Sequence[str]]
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def bleu(hypotheses: Sequence[str], references: References, *, tokenize: str = "13a") -> metric.Score:
    """Returns corpus BLEU as sacrebleu has it (Papineni et al. 2002; Post 2018); `each` is BLEU of sentences, whose
    mean is another number. `tokenize` is one of sacrebleu's: 13a, intl, zh, ja-mecab, char, none."""
    metric.check("bleu", hypotheses, references)
    scorer = extra.library("sacrebleu.metrics").BLEU
    return _by_sacrebleu(
        scorer(tokenize=tokenize), scorer(tokenize=tokenize, effective_order=True), hypotheses, references
    )


def chrf(hypotheses: Sequence[str], references: References, *, word_order: int = 0) -> metric.Score:
    """Returns chrF2 of characters as sacrebleu has it (Popovic 2015), with a `word_order` of 2 chrF++; `each` is that
    of sentences, whose mean is another number."""
    metric.check("chrf", hypotheses, references)
    scorer = extra.library("sacrebleu.metrics").CHRF(word_order=word_order)
    return _by_sacrebleu(scorer, scorer, hypotheses, references)


def _by_sacrebleu(corpus: Any, sentence: Any, hypotheses: Sequence[str], references: References) -> metric.Score:
    own = [_several(one) for one in references]
    # sacrebleu wants one list for every place that a reference may have, None where an answer has fewer.
    columns = [[one[k] if k < len(one) else None for one in own] for k in range(max(map(len, own)))]
    found = corpus.corpus_score(list(hypotheses), columns)
    each = [sentence.sentence_score(text, list(one)).score for text, one in zip(hypotheses, own, strict=True)]
    return metric.Score(float(found.score), f"{found.name}|{corpus.get_signature()}", tuple(map(float, each)))


def rouge(hypotheses: Sequence[str], references: References, *, stemmer: bool = False) -> dict[str, metric.Score]:
    """Returns the mean F1 of rouge1, rouge2, rougeL and rougeLsum as rouge-score has it (Lin 2004), against the best of
    several references. Lsum takes lines for sentences. rouge-score keeps a to z and digits only: other scripts are
    empty to it."""
    metric.check("rouge", hypotheses, references)
    scorer = extra.library("rouge_score.rouge_scorer").RougeScorer(list(ROUGES), use_stemmer=stemmer)
    found = [scorer.score_multi(_several(one), text) for text, one in zip(hypotheses, references, strict=True)]
    version = importlib.metadata.version("rouge-score")
    sign = lambda name: f"{name}|F1|mean of answers|stemmer:{'yes' if stemmer else 'no'}|rouge-score:{version}"
    return {name: metric.mean([float(one[name].fmeasure) for one in found], sign(name)) for name in ROUGES}


def exact_match(hypotheses: Sequence[str], references: References) -> metric.Score:
    """Returns the share of answers that are one of their references to the letter, but for white space around them."""
    return _best("exact_match", lambda text, one: float(text.strip() == one.strip()), hypotheses, references)


def normalised_match(hypotheses: Sequence[str], references: References) -> metric.Score:
    """Returns the share of answers that are one of their references but for case, punctuation, white space and the
    words a, an, the: the exact match of SQuAD (Rajpurkar et al. 2016)."""
    same = lambda text, one: float(_normalised(text) == _normalised(one))
    return _best("normalised_match", same, hypotheses, references)


def f1(hypotheses: Sequence[str], references: References) -> metric.Score:
    """Returns the mean F1 of the words that an answer shares with the best of its references, normalised for SQuAD."""
    return _best("f1", _word_f1, hypotheses, references)


def _best(
    name: str, score: Callable[[str, str], float], hypotheses: Sequence[str], references: References
) -> metric.Score:
    metric.check(name, hypotheses, references)
    each = [max(score(text, one) for one in _several(own)) for text, own in zip(hypotheses, references, strict=True)]
    return metric.mean(each, f"{name}|best of references|mean of answers")


def _several(references: str | Sequence[str]) -> list[str]:
    found = [references] if isinstance(references, str) else list(references)
    if not found:
        raise ValueError("an answer has no reference: an empty list")
    return found


def _normalised(text: str) -> str:
    kept = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _word_f1(text: str, reference: str) -> float:
    given, wanted = _normalised(text).split(), _normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))
