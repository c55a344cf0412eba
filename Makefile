# `make demo` and `make test` set up everything they need on a machine with Python 3.10+ and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out out
	$(BIN)/python examples/steer_restoration.py --out out

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[lint]"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target .peers -r benchmarks/requirements.txt
	PYTHONPATH=.peers $(BIN)/python benchmarks/speed.py
	PYTHONPATH=.peers $(BIN)/python benchmarks/memory.py

# stlpips-pytorch brings the weights of stlpips-vgg; the packages it asks for are never imported.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	$(BIN)/python -m pip install --quiet --no-deps stlpips-pytorch==0.0.2
	touch $@

clean:
	rm -rf $(VENV) .peers out dist build
