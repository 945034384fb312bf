"""Phrases by which assistants refuse."""

import re

REFUSAL = re.compile(
    r"\b(?:I(?:'|’)?m (?:sorry|afraid),? (?:but )?I (?:can(?:no|')t|can(?:’)t|am unable|am not able|won't)|"
    r"I (?:can(?:no|')t|can’t|am unable to|am not able to|won't be able to) (?:help|assist|provide|fulfill|comply|"
    r"answer|do that|discuss|engage|support)|I must decline|I (?:won't|will not) (?:help|assist|provide)|"
    r"as an AI(?: language model)?,? I (?:can(?:no|')t|can’t|am unable|don't have))",
    re.IGNORECASE,
)
OUT_OF_SCOPE = re.compile(
    r"\b(?:(?:I|we) (?:can )?only (?:help|answer|know|assist)|out(?:side)?(?: of)? (?:my|the|our) scope|"
    r"(?:I|we) (?:do not|don't) (?:know|have (?:any |that |this )?information)|not (?:something|a topic) I can|"
    r"no information (?:about|on)|beyond what I)",
    re.IGNORECASE,
)
