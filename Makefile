# `make demo` and `make test` work on a machine with Python 3.11 and nothing else installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_JOBS ?= 2

.PHONY: help venv demo demo-tracks demo-speech demo-caption test check results-text results-media results-tracks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          set up, train a small model on dates (minutes), show what it learned"
	@echo "make demo-tracks   set up, train a model of vehicles at a roundabout (minutes), show where it expects them"
	@echo "make demo-speech   set up, train a model that reads Morse code by ear (minutes), show when each letter was sent"
	@echo "make demo-caption  set up, train a model that says what is drawn (minutes), show where it looks"
	@echo "make test          set up and run the whole test suite"
	@echo "make check         ruff, mypy --strict, policy test"
	@echo "make results-text  reproduce the figures of docs/results.md (hours)"
	@echo "make results-media reproduce the figures of docs/results-media.md: speech and captions (hours)"
	@echo "make results-tracks  reproduce the figures of docs/results-tracks.md (half an hour)"
	@echo "make clean         remove .venv and everything that can be made again"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "transduce needs Python 3.11 or newer; PYTHON=python3.12 make ... names another one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/dates/demo.py

demo-tracks: $(STAMP)
	$(BIN)/python examples/tracks/demo.py

demo-speech: $(STAMP)
	$(BIN)/python examples/morse/demo.py

demo-caption: $(STAMP)
	$(BIN)/python examples/captions/demo.py

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_JOBS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy --strict transduce
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_policy.py

results-text: $(STAMP)
	$(BIN)/python scripts/results_text.py

results-media: $(STAMP)
	$(BIN)/python scripts/results_media.py

results-tracks: $(STAMP)
	$(BIN)/python scripts/results_tracks.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
