"""Writes tests/golden/*.npz: what transformers and PEFT compute on the tiny models of tests/golden/cases.py.

  python scripts/make_goldens.py            # in the environment of the extra `parity`
  python scripts/make_goldens.py gemma2_capped lora_qv                    # only these

Run it again when a case is added; the files are read by the default test suite, which needs neither of the two.
"""

import json
from pathlib import Path
import sys
import tempfile

from safetensors import numpy as safetensors_numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from golden import cases
from parity import peers


def main() -> None:
    """Writes the model and adapter cases that are named, or all, and says how large the files are."""
    named = sys.argv[1:] or [*cases.MODELS, *cases.ADAPTERS]
    given = cases.inputs()
    for case, config in cases.MODELS.items():
        if case not in named:
            continue
        made = peers.model(config)
        found = peers.logits(made, given) | {"greedy": peers.greedy(made, given)}
        cases.write(case, config=config, tensors=peers.state(made), **given, **found)
    for case, (base, arguments) in cases.ADAPTERS.items():
        if case not in named:
            continue
        wrapped = peers.adapted(peers.model(cases.MODELS[base]), arguments)
        with tempfile.TemporaryDirectory() as folder:
            wrapped.save_pretrained(folder)
            config = json.loads((Path(folder) / "adapter_config.json").read_text())
            tensors = safetensors_numpy.load_file(Path(folder) / "adapter_model.safetensors")
        attached = peers.logits(wrapped, given)
        merged = peers.merged(wrapped, case, given)
        found = {f"attached_{k}": v for k, v in attached.items()} | {f"merged_{k}": v for k, v in merged.items()}
        cases.write(case, config=config, tensors=tensors, **found)
    files = sorted(cases.FOLDER.glob("*.npz"))
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB in {cases.FOLDER}")


if __name__ == "__main__":
    main()
