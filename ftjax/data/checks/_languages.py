"""The language of texts, where they are long enough to tell."""

from collections.abc import Iterable, Iterator
import functools
import re
from typing import Any

_LEAST = 40  # letters: of shorter texts the language is a guess
_SURE = 0.99
_MOST = 400  # characters that are looked at
_NO_LETTER = re.compile(r"[\W\d_]+")
_CODE = re.compile(r"```.*?(?:```|$)|https?://\S+", re.DOTALL)


def of(texts: Iterable[str]) -> Iterator[str | None]:
    """Yields the ISO code of each text, or None where it is short or in doubt."""
    for text in texts:
        bare = _CODE.sub(" ", text[: 4 * _MOST])[:_MOST]
        if len(_NO_LETTER.sub("", bare)) < _LEAST:
            yield None
            continue
        code, sure = _identifier().classify(bare)
        yield str(code) if sure >= _SURE else None


@functools.cache
def _identifier() -> Any:
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
