"""A model folder, an adapter or a run -> something that answers."""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ftjax import config as configs
from ftjax import hosts
from ftjax.adapters import attach
from ftjax.checkpoint import hf_import, peft
from ftjax.data import chat, encode, gguf_file, records, template, tokenizer
from ftjax.errors import UserError
from ftjax.models.config import ModelConfig
from ftjax.sampling import generate


@dataclasses.dataclass(frozen=True)
class Model:
    """A base, with or without adapters attached, and all that it takes to talk to it."""

    folder: Path
    config: ModelConfig
    params: Any
    tokenizer: tokenizer.Tokenizer
    template: template.Template | None
    stop_ids: tuple[int, ...]

    def prompt_ids(self, messages: Sequence[records.Message]) -> list[int]:
        """Returns the tokens that ask for the next answer; without a template, those of the last message's text."""
        if self.template is None:
            start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
            return start + self.tokenizer.encode(messages[-1].content).ids
        return encode.prompt_ids(messages, self.tokenizer, made=self.template, tools=())

    def refuse(self, messages: Sequence[records.Message], max_new_tokens: int) -> None:
        """Raises a UserError for a chat that leaves no room for so many new tokens."""
        generate.check_room(len(self.prompt_ids(messages)), max_new_tokens, self.config)

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int,
        samples: int = 1,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop_strings: Sequence[str] = (),
    ) -> list[str]:
        """Returns a text for each tokenised prompt, or `samples` of each side by side; it ends before a stop string."""
        out = generate.generate(
            self.params,
            prompts,
            jax.random.key(seed),
            self.config,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_ids=self.stop_ids,
            samples=samples,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop_strings=stop_strings,
            tokenizer=self.tokenizer,
        )
        rows, lengths = hosts.on_host((out.tokens, out.mask.sum(axis=1)))
        decode = lambda row, n: self.tokenizer.decode(row[:n].tolist(), skip_special=True)
        return [_before(stop_strings, decode(row, n)).strip() for row, n in zip(rows, lengths, strict=True)]


def _before(strings: Sequence[str], text: str) -> str:
    return text[: min((at for at in map(text.find, strings) if at >= 0), default=len(text))]


def embedded_base() -> Path:
    """Returns the folder of the base that ships with ftjax."""
    return Path(__file__).parent / "assets" / "base"


def folder_of(name: str) -> Path:
    """Returns the folder or GGUF file of a base: "base" is the embedded one, anything else a path or a package."""
    single = gguf_file.find(name)
    if single is not None:
        return single
    path = embedded_base() if name == "base" else Path(name).expanduser()
    if not path.is_dir():
        known = ", ".join(("base", *gguf_file.PACKAGES))
        raise UserError(f"there is no model folder {name!r}; give a Hugging Face folder, a .gguf file, or: {known}")
    return path


class Quant(NamedTuple):
    """How the base is held: `config.quant`."""

    format: str = "none"
    leaves: str = hf_import.QUANTISED
    group: int = 0


DENSE = Quant()


def check_writes(adapter: str) -> None:
    """Raises where a PEFT folder is a reward model's, which gives scores and no text."""
    if peft.is_reward(adapter):
        raise UserError(
            f"{adapter} is a reward model, which does not write; score completions with "
            "python scripts/score.py --run RUN --input FILE.jsonl --output SCORED.jsonl"
        )


def load(model: str, *, adapter: str | None, template_name: str | None, dtype: str, quant: Quant = DENSE) -> Model:
    """Returns a model folder with, if given, a PEFT adapter attached; `quant` puts its matrices into few bits."""
    if adapter is not None:
        check_writes(adapter)  # before the weights are read
    folder = folder_of(model)
    config, base = hf_import.load(folder, quant.format, dtype, leaves=quant.leaves, group=quant.group)
    tok = tokenizer.load(folder)
    tokenizer.check_vocabulary(tok, config.vocab_size)
    made = template.load(template_name, tok) if template_name or tok.chat_template else None
    alone = Model(
        folder=folder, config=config, params=base, tokenizer=tok, template=made, stop_ids=chat.stop_ids(tok, made)
    )
    return alone if adapter is None else with_adapter(alone, adapter)


def with_adapter(base: Model, adapter: str) -> Model:
    """Returns a base that is in memory with a PEFT adapter attached."""
    check_writes(adapter)
    return dataclasses.replace(base, params=attach.attach(base.params, peft.load(adapter, base.params, base.config)))


class Made(NamedTuple):
    """What a finished run left behind."""

    model: str  # its base, or after full fine-tuning its own model
    adapter: str | None
    template: str | None  # name of the chat template where it was not the tokenizer's own
    quant: Quant = DENSE  # of the base that the adapter was trained on


def made_by(run: str | Path) -> Made:
    """Returns what a finished run made; raises UserError where the folder is no run or the run is not at its end."""
    folder = Path(run).expanduser()
    config = configs.from_run(folder)
    if "algorithm" not in config:
        raise UserError(f"{folder} is no training run; give a folder that scripts/train.py made")
    template_name = config.data.template or None
    if (folder / "model").is_dir():
        return Made(str(folder / "model"), None, template_name)
    if not (folder / "adapter").is_dir():
        raise UserError(
            f"{folder} has nothing to show yet: the run has not come to its end; continue it with "
            f"python scripts/train.py --workdir {folder} --resume"
        )
    quant = Quant(**config.quant) if "quant" in config else DENSE
    return Made(config.model.path, str(folder / "adapter"), template_name, quant)


def made_of(section: Mapping[str, Any], *, template: str, quant: Mapping[str, Any]) -> Made:
    """Returns what config.model names: a run, or a model with or without an adapter, which must be one that writes."""
    if section["run"] and section["adapter"]:
        raise UserError(
            f"config.model.adapter is {section['adapter']!r}, but a run has its own; leave one of the two empty"
        )
    asked = Made(section["path"], section["adapter"] or None, template or None, Quant(**quant))
    made = made_by(section["run"])._replace(template=asked.template) if section["run"] else asked
    if made.adapter:
        check_writes(made.adapter)
    return made


def load_made(made: Made, *, dtype: str) -> Model:
    """Returns a base with what was made of it."""
    return load(made.model, adapter=made.adapter, template_name=made.template, dtype=dtype, quant=made.quant)
