# `make` lists the targets. Everything that they need is installed into .venv by the first of them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
# Tests at once, on one thread each.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
ROOMS := convert runtime validators
# Tests that meet transformers, timm, torch and the ONNX tools, whose oldest versions differ most.
MEETING := tests/convert/layouts tests/convert/libraries tests/convert/patches tests/convert/graphs/test_tracing.py \
	tests/runtime/inputs/test_preprocessing.py tests/core/workflows/test_fill.py

.PHONY: help install install-oldest demo test test-full checks test-oldest test-oldest-quick test-npu-package test-browser lint types typed unit wheel schemas mutants clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv and install vconv with its development extras

$(STAMP): setup.cfg pyproject.toml core/_version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## export dinov3-vits16 with synthetic weights and validate it
	$(BIN)/vconv export dinov3-vits16 --weights synthetic --force
	$(BIN)/vconv validate artifacts/dinov3-vits16 --quick

# Types and the wheel are checked beside the tests; what they say comes after.
test: lint  ## every check; in full size, one system (minutes)
	@mkdir -p build
	@$(MAKE) --no-print-directory checks > build/checks.log 2>&1 & checks=$$!; \
	$(MAKE) --no-print-directory unit; unit=$$?; \
	wait $$checks; checks=$$?; cat build/checks.log; exit $$((unit || checks))

checks: types wheel

test-full: lint types wheel  ## every check, with every system in every test, and all of them in full size (an hour)
	$(PYTEST) -m 'not slow and not browser'

test-browser: $(STAMP) typed  ## the report's page in Chromium, where that is installed
	$(BIN)/python -m pytest -m browser tests/validators/report/page/test_page_in_a_browser.py

lint: $(STAMP)  ## style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) typed  ## strict types
	$(BIN)/mypy

# Type checkers want one folder a package: a tree of links has the shape of the installed one.
typed:
	rm -rf build/typed && mkdir -p build/typed/vconv
	for file in core/*; do ln -sfn ../../../$$file build/typed/vconv/; done
	for room in $(ROOMS); do ln -sfn ../../../$$room build/typed/vconv/; done

unit: $(STAMP)  ## tests
	$(PYTEST)

test-oldest: $(OLDEST)/.installed  ## tests with the oldest supported set, tests/oldest.txt
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-oldest-quick: $(OLDEST)/.installed  ## the part of them that meets the libraries
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(MEETING)

install-oldest: $(OLDEST)/.installed

$(OLDEST)/.installed: setup.cfg tests/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --editable . --requirement tests/oldest.txt pytest pytest-xdist hypothesis
	touch $@

test-npu-package: $(STAMP) typed  ## export beside the real torch_npu, without CANN, in .venv-npu (5 GB, minutes)
	$(BIN)/python -m pytest -m slow tests/core/test_npu_package.py

wheel: $(STAMP)  ## build a wheel and run it outside the checkout
	$(BIN)/python tests/wheel.py

schemas: $(STAMP)  ## write the JSON Schemas of the manifest and the reports under docs/schema
	$(BIN)/python -m vconv.validators.report.schema docs/schema

mutants: $(STAMP)  ## change the judging code in every small way, and see that a test notices (minutes)
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	$(BIN)/python benchmarks/mutants.py

clean:  ## remove what the other targets made, but not .venv
	rm -rf build dist *.egg-info
