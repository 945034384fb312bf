"""The tokenizer of the embedded base: byte-level BPE, every digit its own token, one end token, roles as tokens."""

from collections.abc import Iterable, Iterator
import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from ftjax.assets.rows import Row

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
SPECIAL = (PAD, BOS, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")  # ids 0 to 6

# A word, a digit or a run of signs, each with the space before it; then what is left of the white space.
SPLIT = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- '<|assistant|>' -}}
    {%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
  {%- elif message['role'] in ['system', 'user', 'tool'] -%}
    {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
  {%- else -%}
    {{- raise_exception('Unknown role ' + message['role'] + '; the roles are system, user, assistant, tool.') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def rendered(row: Row) -> str:
    """Returns a row of the corpus as the chat template would write it; a text becomes <|bos|>text<|end|>."""
    if "text" in row:
        return f"{BOS}{row['text']}{END}"
    return BOS + "".join(f"<|{message['role']}|>{message['content']}{END}" for message in row["messages"])


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield from [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]


def train(rows: Iterable[Row], size: int) -> tokenizers.Tokenizer:
    """Returns a BPE tokenizer with `size` tokens, the same for the same rows; encoding puts <|bos|> in front."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(rows), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    return tokenizer


def save(tokenizer: tokenizers.Tokenizer, folder: Path, *, longest: int) -> None:
    """Writes the tokenizer the Hugging Face way, so that AutoTokenizer loads it; `longest` is the model's context."""
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        model_max_length=longest,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    # The class by the name that transformers 4 knows too, and the map that it reads; version 5 needs neither.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {key: value for key, value in settings.items() if key != "backend"}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    marks = {"bos_token": BOS, "eos_token": END, "pad_token": PAD}
    for name, value in (("tokenizer_config.json", settings), ("special_tokens_map.json", marks)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
