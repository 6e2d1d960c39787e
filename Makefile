# make venv        installs everything into .venv (PYTHON=python3.12 chooses the interpreter)
# make quickstart  trains and evaluates a ShiftResNet on real digits
# make test        the everyday tests; make test-slow, the slow ones; make test-all, both
# make survival    kills and stops training runs dozens of times and compares what they learn
# make fuzz        reads 10,000 damaged files and texts; slow cases, memory and exceptions are told
# make lint        formatting, lint, the one-way imports and types
# make docs        builds the documentation into build/site, strictly
# make bench       speed of the shift on this device

VENV := .venv
# An interpreter named on the command line that is not the environment's makes it anew.
ifdef PYTHON
  ifneq ($(shell $(VENV)/bin/python -V 2>/dev/null),$(shell $(PYTHON) -V 2>/dev/null))
    $(shell rm -f $(VENV)/installed)
  endif
endif
PYTHON ?= python3
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart

.PHONY: venv quickstart test test-slow test-all survival fuzz lint format docs bench clean

venv: $(VENV)/installed

$(VENV)/installed: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than Python 3.11: name a newer one, as in make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'
	@touch $@

quickstart: venv
	$(BIN)/python train.py --config=configs/quickstart.py --workdir=$(WORKDIR)
	$(BIN)/shift-jax report --workdir=$(WORKDIR)

test: venv
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: venv
	$(BIN)/python -m pytest -n 2 -m slow

test-all: test-slow test

survival: venv
	SHIFT_JAX_SURVIVAL=long $(BIN)/python -m pytest -s -m slow -k dozens tests/test_survival.py

fuzz: venv
	SHIFT_JAX_FUZZ=10000 $(BIN)/python -m pytest -s -n 0 tests/test_fuzz.py

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/basedpyright

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: venv
	$(BIN)/python benchmarks/shift.py

clean:
	rm -rf $(VENV) runs build *.egg-info
