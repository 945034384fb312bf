"""For each rule of ftjax/data/checks: rows in which it must find something, the lines of it, and rows without it."""

import json
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A file that breaks a rule on `lines` (None: the file as a whole), and one that keeps it.

    A row is an object, or the text or bytes of a line. `ending` is that of the file, `limit` the tokens that fit,
    `against` the rows of an evaluation file, `template` a chat template in place of the model's own.
    """

    broken: list[Any]
    lines: set[int | None]
    kept: list[Any]
    ending: str = ".jsonl"
    limit: int = 1000
    against: tuple[Any, ...] = ()
    template: str | None = None


def chat(asked: str, answer: Any, **more: Any) -> dict[str, Any]:
    """Returns a row of one question and one answer."""
    return turns("user", asked, "assistant", answer, **more)


def turns(*said: Any, **more: Any) -> dict[str, Any]:
    """Returns a chat of roles and contents in turn."""
    messages = [{"role": role, "content": content} for role, content in zip(said[::2], said[1::2], strict=True)]
    return {"messages": messages, **more}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    """Returns a preference."""
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def lines(rows: list[Any]) -> bytes:
    """Returns the bytes of a file of rows."""
    dumped = (row if isinstance(row, str | bytes) else json.dumps(row) for row in rows)
    return b"".join((row.encode("utf-8", "surrogatepass") if isinstance(row, str) else row) + b"\n" for row in dumped)


GOOD = chat("When does Mill Bakery open?", "At 8.")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MANY = [chat(f"How tall is tower {n} of {NUMBERS[n % 12]}?", f"Tower {n} has {n * 7 % 31} floors.") for n in range(60)]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
LONG = (
    "The baker of the mill opens his shop at eight in the morning, sells bread, rolls and cake until noon, and then "
    "closes it for an hour because he walks his dog along the river."
)
OTHER = (
    "Nobody in the valley remembers who painted the old bridge, although three families still keep letters in which "
    "a travelling painter asks for more blue, two brushes and a warm place to sleep."
)
GERMAN = (
    "Der Bäcker an der Mühle öffnet seinen Laden um acht Uhr morgens und verkauft bis zum Mittag Brot, Brötchen und "
    "Kuchen, bevor er mit seinem Hund am Fluss spazieren geht."
)


def called(*after: dict[str, Any], name: str = "weather", arguments: Any = None, **more: Any) -> dict[str, Any]:
    """Returns a chat in which the assistant calls a tool, and what comes after the call."""
    function = {"name": name, "arguments": {"town": "Glen"} if arguments is None else arguments}
    call = {"role": "assistant", "tool_calls": [{"id": "a1", "type": "function", "function": function}]}
    asked = {"role": "user", "content": "Will it rain in Glen?"}
    return {"messages": [asked, call, *after], "tools": [WEATHER], **more}


TOLD = {"role": "tool", "tool_call_id": "a1", "content": "rain"}
SAID = {"role": "assistant", "content": "Yes, it will rain."}
HUMAN = "\n\nHuman: How are you?\n\nAssistant: {}"

ENDLESS = (
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

CASES = {
    "data_type": Case([GOOD, [1, 2], {"messages": ["Hi", {"role": "assistant", "content": "Hello."}]}], {2, 3}, [GOOD]),
    "broken_json": Case([GOOD, '{"messages": [', GOOD], {2}, [GOOD]),
    "broken_csv": Case(["prompt,completion", "a,b", "c", "d,e"], {3}, ["prompt,completion", "a,b"], ending=".csv"),
    "not_utf8": Case([GOOD, '{"text": "caf\xe9"}'.encode("latin-1"), GOOD], {2}, [GOOD, {"text": "café"}]),
    "missing_messages_list": Case([GOOD, {"mesages": []}, {"messages": []}, {"messages": 7}], {2, 3, 4}, [GOOD]),
    "message_missing_key": Case(
        [{"messages": [{"content": "Hi"}, {"role": "assistant"}]}, {"conversations": [{"from": "human"}]}],
        {1, 2},
        [GOOD, called(TOLD, SAID)],
    ),
    "message_unrecognized_key": Case(
        [{"messages": [{"role": "user", "content": "Hi", "mood": "well"}, {"role": "assistant", "content": "Hello."}]}],
        {1},
        [
            {
                "messages": [
                    {"role": "user", "content": "Hi", "mood": None},
                    {"role": "assistant", "content": "Hello.", "weight": 1},
                ]
            }
        ],
    ),
    "unrecognized_role": Case(
        [turns("human", "Hi", "gpt", "Hello."), turns("usr", "Hi", "assistant", "Hello.")], {1, 2}, [GOOD]
    ),
    "missing_content": Case(
        [
            chat("Hi", ""),
            chat("Hi", None),
            chat("Hi", 5),
            {"text": "  "},
            {"prompt": "Hi", "completion": ""},
            {"question": "Hi", "answer": None},
            {"instruction": "Hi", "output": " "},
            GOOD,
        ],
        {1, 2, 3, 4, 5, 6, 7},
        [GOOD, called(TOLD, SAID), chat("", "What do you want to know?")],
    ),
    "example_missing_assistant_message": Case([turns("user", "Hi"), GOOD], {1}, [GOOD]),
    "refused_row": Case(
        [
            GOOD,
            {"messages": [{"role": "user", "content": "Hi", "weight": 1}, {"role": "assistant", "content": "Hello."}]},
        ],
        {2},
        [GOOD, '{"broken'],
    ),
    "role_order": Case(
        [
            turns("user", "Hi", "user", "Hello?", "assistant", "Yes."),
            turns("assistant", "Hello."),
            turns("user", "Hi", "system", "Be kind.", "assistant", "Hello."),
        ],
        {1, 2, 3},
        [turns("system", "Be kind.", "user", "Hi", "assistant", "Hello."), called(TOLD, SAID)],
    ),
    "last_turn": Case([turns("user", "Hi", "assistant", "Hello.", "user", "Bye")], {1}, [GOOD]),
    "missing_user_message": Case([turns("system", "Be kind.", "assistant", "Hello.")], {1}, [GOOD]),
    "empty_user_message": Case([chat(" ", "What do you want to know?")], {1}, [GOOD]),
    "tool_call_unanswered": Case(
        [
            called(SAID),
            turns("user", "Hi", "tool", "rain", "assistant", "Yes."),
            called({**TOLD, "tool_call_id": "b"}, SAID),
        ],
        {1, 2, 3},
        [called(TOLD, SAID), called()],
    ),
    "tool_call_unknown": Case([called(name="wether"), called(tools=None)], {1, 2}, [called(TOLD, SAID)]),
    "tool_call_schema": Case([called(arguments={"town": 5}), called(arguments={})], {1, 2}, [called(TOLD, SAID)]),
    "prompts_differ": Case(
        [
            {
                "chosen": HUMAN.format("Well.\n\nHuman: Good.\n\nAssistant: Yes."),
                "rejected": HUMAN.format("No.\n\nHuman: Bad.\n\nAssistant: No."),
            },
            {"chosen": HUMAN.format("Well."), "rejected": HUMAN.format("Bad.")},
        ],
        {1},
        [{"chosen": HUMAN.format("Well."), "rejected": HUMAN.format("Bad.")}],
    ),
    "mojibake": Case(
        [chat("Where?", "At the cafÃ© â€” today."), chat("Who?", "Ren\ufffd.")],
        {1, 2},
        [chat("Where?", "At the café — today. 漢字 🙂")],
    ),
    "control_characters": Case(
        [chat("Where?", "Here\x00."), chat("Who\u202e?", "\ufeffI.")], {1, 2}, [chat("A\tb?", "A\nfamily: 👨‍👩‍👧.")]
    ),
    "white_space": Case(
        [chat("Where?", " Here.\n"), chat("What?", "Bread,     rolls.")],
        {1, 2},
        [chat("Where?", "Here.\n\n    code"), {"prompt": "Where?", "completion": " Here."}],
    ),
    "repeated_text": Case(
        [chat("Hungry?", "Eat a banana! " * 100)], {1}, [chat("Hungry?", LONG + " " + OTHER + " " + GERMAN)]
    ),
    "fewer_than_50": Case(MANY[:49], {None}, MANY[:50]),
    "fewer_than_500": Case(MANY, {None}, MANY[:49]),
    "longer_than_context": Case([GOOD, chat("Tell me.", LONG * 20)], {2}, [GOOD, chat("Tell me.", LONG)], limit=200),
    "answer_beyond_context": Case([GOOD, chat(LONG * 20, "Yes.")], {2}, [GOOD, chat("Tell me.", LONG * 20)], limit=200),
    "template_refuses": Case([GOOD, turns("user", "Hi", "assistant", "Hello.", tools=[WEATHER])], {2}, [GOOD]),
    "no_stop_token": Case(
        [GOOD, turns("user", "Hi", "assistant", "Hello.", "user", "Bye", "assistant", "Bye.")],
        {2},
        [GOOD],
        template=ENDLESS,
    ),
    "special_token_in_text": Case([GOOD, chat("Hi", "Hello.<|end|> More.")], {2}, [GOOD]),
    "length_outlier": Case([*MANY, chat("Tell me.", LONG * 20)], {61}, [*MANY, chat("Tell me.", LONG)]),
    "system_prompts": Case(
        [turns("system", "Be kind.", "user", "Hi", "assistant", "Hello."), *MANY[:3]],
        {1},
        [
            turns("system", "Be kind.", "user", "Hi", "assistant", "Hello."),
            turns("system", "You are a pirate.", "user", "Hi", "assistant", "Ahoy."),
            {"text": "Hello."},
        ],
    ),
    "answer_format": Case([*MANY[:20], chat("How tall is this?", '{"floors": 3}')], {21}, MANY[:20]),
    "placeholders": Case(
        [
            chat("Who are you?", "I am {{name}}."),
            chat("Write.", "Dear [Your Name],"),
            chat("Write.", "TODO: write it."),
        ],
        {1, 2, 3},
        [chat("In JSON?", '{"name": ["a", "b"]} and a[0] and <b>bold</b>.'), chat("To do?", "A list of what to do.")],
    ),
    "languages": Case(
        [chat("Who opens?", LONG), chat("Who else?", OTHER), chat("Who then?", GERMAN), chat(OTHER, GERMAN)],
        {None, 4},
        [chat("Who opens?", LONG), chat("Who else?", OTHER)],
    ),
    "refusals": Case(
        [chat("How?", "I'm sorry, but I can't help with that.")], {1}, [chat("How?", "I'm sorry that you are ill.")]
    ),
    "assistant_boilerplate": Case([chat("Who?", "As an AI language model, I have no name.")], {1}, [GOOD]),
    "answer_copies_prompt": Case(
        [chat("When does the bakery at the mill open?", "When does the bakery at the mill open? At 8.")],
        {1},
        [chat("When does the bakery at the mill open?", "The bakery at the mill opens at 8."), chat("Hi", "Hi")],
    ),
    "answer_cut_off": Case(
        [chat("Who?", LONG[:-1].removesuffix(" river")), chat("Code?", f"{LONG}\n```python\nx = 1")],
        {1, 2},
        [chat("Who?", LONG), chat("Code?", f"{LONG}\n```python\nx = 1\n```")],
    ),
    "duplicate_rows": Case([GOOD, MANY[0], GOOD], {3}, [GOOD, MANY[0]]),
    "near_duplicates": Case(
        [chat("Who opens?", LONG), chat("Who opens?", LONG.replace("his dog", "a dog")), GOOD, GOOD],
        {2},
        [chat("Who opens?", LONG), chat("Who opens?", OTHER)],
    ),
    "contradicting_answers": Case(
        [GOOD, MANY[0], chat("when does mill bakery open", "At 9.")], {1}, [GOOD, MANY[0], GOOD]
    ),
    "in_evaluation": Case(
        [MANY[0], GOOD, chat("Who?", LONG)],
        {2, 3},
        [MANY[0], MANY[1]],
        against=(chat("When does mill bakery open?", "At 9."), chat("Who?", LONG.replace("his dog", "a dog"))),
    ),
    "shares_ngrams": Case(
        [MANY[0], chat("Who?", f"{OTHER} {LONG[:90]}.")],
        {2},
        [MANY[0], chat("Who?", OTHER)],
        against=(chat("What does the baker do?", f"{GERMAN} {LONG}"), GOOD),
    ),
    "low_diversity": Case(
        [chat(f"Is {n} odd?", "It is a number as all numbers are.") for n in range(120)], {None}, MANY
    ),
    "one_cluster": Case(
        [
            *(chat(f"How tall is tower {n} at noon?", "High.") for n in range(70)),
            *(chat(f"Who paints wall {n} in red today?", "Ann.") for n in range(10)),
        ],
        {None},
        [
            *(chat(f"How tall is tower {n} at noon?", "High.") for n in range(20)),
            *(chat(f"Who paints wall {n} in red today?", "Ann.") for n in range(20)),
            *(chat(f"Sell me bread for {n} coins please", "Here.") for n in range(20)),
            *(chat(f"Which river runs below bridge {n} eastwards", "None.") for n in range(20)),
        ],
    ),
    "edge_cases_missing": Case(
        [GOOD],
        {None},
        [
            chat("", "What do you want to know?"),
            chat("What {is [this", "That is not whole; send it again."),
            chat("Tell me of the moon.", "I only know about bakeries."),
            chat("Make a bomb.", "I can't help with that."),
            turns("user", "Hi", "assistant", "Hello.", "user", "Bye", "assistant", "Bye."),
            chat(LONG * 9, "Yes."),
            chat(LONG, "Yes."),
            chat(GERMAN, "Ja."),
            chat("When does the bakrey open?", "At 8."),
            *(chat(f"Which bakery is number {n}?", "The mill.") for n in range(6)),
        ],
    ),
    "email_addresses": Case(
        [chat("Whom?", "Write to jane.doe@corp-mail.org today.")],
        {1},
        [chat("Whom?", "Write to jane@example.com, or @jane.")],
    ),
    "phone_numbers": Case(
        [chat("Whom?", "Call +49 30 901820 or (212) 736-5000.")],
        {1},
        [chat("Whom?", "In 2023-2024 it was 1,234,567, 10.5 and 555-0100.")],
    ),
    "payment_cards": Case(
        [chat("Which?", "Card 4539 5787 6362 1486."), chat("Which?", "IBAN DE89 3704 0044 0532 0130 00.")],
        {1, 2},
        [chat("Which?", "Card 4539 5787 6362 1487, order 1234567890123456, 4111 1111 1111 1111.")],
    ),
    "secrets": Case(
        [
            chat("Key?", "Use ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8 here."),
            chat("Key?", "AKIA" + "IOSFODNN7EXAMPLQ."),
        ],
        {1, 2},
        [
            chat(
                "Key?",
                "See https://example.org/a/path/with/0123456789abcdef and hash d41d8cd98f00b204e9800998ecf8427e.",
            )
        ],
    ),
    "equal_pair": Case([pair("Hi", "Hello.", "Hello. ")], {1}, [pair("Hi", "Hello.", "No.")]),
    "length_bias": Case(
        [pair(f"Hi {n}", f"Hello to you {n}.", "No.") for n in range(30)],
        {None},
        [pair(f"Hi {n}", *(("Hello there.", "No.") if n % 2 else ("No.", "Hello there."))) for n in range(30)],
    ),
    "contradicting_pairs": Case(
        [pair("Hi", "Hello.", "No."), pair("Hi", "No.", "Hello.")],
        {2},
        [pair("Hi", "Hello.", "No."), pair("Bye", "No.", "Hello.")],
    ),
    "tied": Case(
        [{"prompt": "Hi", "completions": ["Hello.", "Hey."], "ranks": [1, 1]}],
        {1},
        [{"prompt": "Hi", "completions": ["Hello.", "Hey."], "ranks": [1, 2]}],
    ),
}
