"""Which language a text is in, by the library that IFEval's authors use."""

import functools
from typing import Any


def language(text: str) -> str:
    """Returns the ISO 639-1 code of a text's language ("zh-cn" and "zh-tw" for Chinese), empty where it has no letters.

    It is a guess by character n-grams of the first 10,000 characters, seeded, so the same text has the same answer.
    """
    import langdetect

    detector = _factory().create()
    detector.append(text)
    try:
        return str(detector.detect())
    except langdetect.LangDetectException:
        return ""


def may_be(text: str, code: str) -> bool:
    """Returns whether a text is in a language, or in none that can be told, which the original counts as kept."""
    return language(text) in (code, "")


@functools.cache
def _factory() -> Any:
    import langdetect

    factory = langdetect.DetectorFactory()
    factory.load_profile(langdetect.detector_factory.PROFILES_DIRECTORY)
    factory.seed = 0  # of this factory: the class's own would be everybody's
    return factory
