"""Writes what a run made in a format that others serve.

python scripts/export.py --run runs/NAME --format peft|merged --out DIR [--dtype bfloat16]
"""

from pathlib import Path
import shutil
import sys

from ftjax.errors import UserError
from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--run", required=True, type=Path, help="a finished run")
    parser.add_argument("--format", required=True, choices=("peft", "merged"), help="an adapter, or a whole model")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist or is empty")
    parser.add_argument("--dtype", default=None, choices=("float32", "bfloat16", "float16"), help="of merged weights")
    flags = cli.parse(parser, argv)

    from ftjax import inference
    from ftjax.adapters import merge
    from ftjax.checkpoint import folders, hf_export, hf_import, peft
    from ftjax.data import template, tokenizer
    from ftjax.runs import card

    made = inference.made_by(flags.run)
    if flags.format == "peft":
        if made.adapter is None:
            raise UserError(f"{flags.run} trained all weights, so there is no adapter; use --format merged")
        with folders.written(flags.out) as beside:
            shutil.copytree(made.adapter, beside, dirs_exist_ok=True)
    else:
        base_dir = inference.folder_of(made.model)
        config, base = hf_import.load(base_dir, dtype="float32")
        adapters = None if made.adapter is None else peft.load(made.adapter, base, config)
        chat = template.load(made.template, tokenizer.load(base_dir)).text if made.template else None
        hf_export.save(flags.out, merge.merge(base, adapters), config, base_dir, flags.dtype)
        (flags.out / "README.md").write_text(card.of_run(flags.run, "merged"), encoding="utf-8")
        if chat is not None:  # what the run was trained with, not what the base came with
            (flags.out / "chat_template.jinja").write_text(chat, encoding="utf-8")
    print(f"{flags.format} written to {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
