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
	set -e; for t in frontier_learned frontier_taught; do \
	  $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open(sys.argv[1], "rb"))["models"], sep="\n")' plans/tables/$$t.toml \
	    | xargs -d '\n' -n 1 $(BIN)/unsample train-inverse --model; \
	done
	$(BIN)/unsample train-inverse --model 'scenes-sd[timestep_spacing=trailing,set_alpha_to_one=true]' --num-pictures 512 --num-updates 600
	set -e; for t in frontier frontier_guided frontier_ink frontier_trailing frontier_learned frontier_taught \
	  frontier_learned_scenes png jpeg95 jpeg75 frontier_edits; do \
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
