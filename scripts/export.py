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

    from ftjax import config as configs
    from ftjax import inference
    from ftjax.adapters import merge
    from ftjax.checkpoint import folders, hf_export, hf_import, peft

    config = configs.from_run(flags.run)
    source = flags.run / "adapter"
    if (flags.run / "model").is_dir():
        if flags.format == "peft":
            raise UserError(f"{flags.run} trained all weights, so there is no adapter; use --format merged")
        source = flags.run / "model"
    if not source.is_dir():
        raise UserError(
            f"{flags.run} holds no adapter yet; the run has not come to its end (continue it with --resume)"
        )
    if flags.format == "peft":
        with folders.written(flags.out) as beside:
            shutil.copytree(source, beside, dirs_exist_ok=True)
    else:
        base_dir = source if source.name == "model" else inference.folder_of(config.model.path)
        model_config, base = hf_import.load(base_dir, dtype="float32")
        adapters = None if source.name == "model" else peft.load(source, base, model_config)
        hf_export.save(flags.out, merge.merge(base, adapters), model_config, base_dir, flags.dtype)
        if (source / "README.md").is_file():
            shutil.copyfile(source / "README.md", flags.out / "README.md")
    print(f"{flags.format} written to {flags.out}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
