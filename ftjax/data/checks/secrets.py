"""Keys, tokens and passwords."""

from collections.abc import Iterator
import functools
import re

from ftjax.data import rows
from ftjax.data.checks import _personal

SEVERITY = "warning"
WHY = "A model repeats what it was trained on; and whoever reads the file can use the key."
FIX = "Revoke the key, and replace it in the file."
# Of detect-secrets, those that know the form of a key. Its measures of entropy and its words ("password = ...") are
# for source code: on prose they find tables and examples.
_PLUGINS = (
    *(
        "ArtifactoryDetector",
        "AWSKeyDetector",
        "AzureStorageKeyDetector",
        "BasicAuthDetector",
        "DiscordBotTokenDetector",
    ),
    *("GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector", "MailchimpDetector", "NpmDetector"),
    *("OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector"),
    *("SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector"),
)
# Every one of them is a run of 16 characters with a digit, a URL with a password, or a header.
_RUN = re.compile(r"\S{16,}")
_DIGIT = re.compile(r"\d")
_MAYBE = re.compile(r"://[^\s/]{1,200}:[^\s/]{1,200}@|BEGIN[A-Z ]*PRIVATE KEY|_authToken")


def check(data: rows.DataFile) -> Iterator[rows.Found]:
    """Yields rows with something that has the form of a known key, masked."""
    return _personal.found(data, "secret", find)


def find(text: str) -> Iterator[str]:
    """Yields the secrets of a text."""
    if not _maybe(text):
        return
    for line in text.splitlines():
        if _maybe(line):
            for form in _forms():
                yield from (match[0] for match in form.finditer(line))


def _maybe(text: str) -> bool:
    return any(_DIGIT.search(run[0]) for run in _RUN.finditer(text)) or _MAYBE.search(text) is not None


@functools.cache
def _forms() -> list[re.Pattern[str]]:
    from detect_secrets.core.plugins import util

    known = util.get_mapping_from_secret_type_to_class().values()
    return [form for kind in known if kind.__name__ in _PLUGINS for form in kind().denylist]
