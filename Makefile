# make setup | demo | test | check | models | models-eval | mini | tables | studies | bench | clean
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test check models models-eval mini tables studies bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unsample needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

models: setup
	$(BIN)/python -m training.build

models-eval: setup
	$(BIN)/python -m training.evaluate

mini: setup
	$(BIN)/python -m training.mini --threads 1
	$(BIN)/python -m training.mini --evaluate

tables: setup
	set -e; for t in recovery mixture reconstruction editing whiteness flow_recovery flow_reconstruction flow_editing; do \
	  $(BIN)/unsample bench run plans/tables/$$t.toml -o out/tables/$$t --artefacts none; \
	  $(BIN)/unsample report out/tables/$$t --docs docs/methods.md; \
	done
	set -e; for t in editing_tune editing_aims editing_kinds editing_methods; do \
	  $(BIN)/unsample bench run plans/tables/$$t.toml -o out/tables/$$t --artefacts none; \
	  $(BIN)/unsample report out/tables/$$t --docs docs/editing.md; \
	done
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("plans/tables/frontier_learned.toml", "rb"))["models"], sep="\n")' \
	  | xargs -d '\n' -n 1 $(BIN)/unsample train-inverse --model
	set -e; for t in frontier frontier_guided frontier_ink frontier_trailing frontier_learned png jpeg95 jpeg75 frontier_edits; do \
	  $(BIN)/unsample bench run plans/tables/$$t.toml -o out/tables/$$t --artefacts none; \
	  $(BIN)/unsample report out/tables/$$t --docs docs/frontier.md; \
	done

studies: setup
	$(BIN)/unsample study all -o out/studies

bench: setup
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.method_cost
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.round_trip
	$(BIN)/python -m benchmarks.bench_survives
	$(BIN)/python -m benchmarks.serve_load
	$(BIN)/python -m benchmarks.collections

clean:
	rm -rf .venv out dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
