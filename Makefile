# make serve   run the server on ./data                    (SERVE_ARGS="--port 8080" for options of `ds serve`)
# make test    every test                                  (ARGS="tests/core -k cbor" for options of pytest)
# make lint    ruff and mypy
# make docs    the API reference, from docstrings, into build/docs
# make soak    kill -9, power cuts, I/O errors, bad pages, full disks (as root), a device's flash  (CYCLES=500 SEED=7; a seed replays what it did)
# make bench   benchmarks, ours and the peers'             (ARGS="--quick --only append,sse"; ARGS=--help)
# make bench-growth   what grows, beside a fresh store   (ARGS="--quick --only freeing,tiny")
# make micro   cross-compile the device's client into build/micro, print the sizes
# make demo    a sensor on MicroPython, a gateway, a live reader; power cuts; a proof  (ARGS="--seconds 60 --cuts 20")
# make bench-device   measure the device's client: size, heap, bytes on the wire beside MQTT, records/s
# make fuzz    every parser's fuzz target for a minute, with atheris  (SECONDS=600; findings stay in build/fuzz)
# make compile compile what every request goes through with mypyc, in place (needs a C compiler; make clean undoes it)
# make clean   remove what these set up
#
# Each sets up what it needs in .venv first, once. PYTHON=/path/to/python3.12 chooses the interpreter.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HEADLESS := $(filter-out 0 false no,$(CI))

.PHONY: help serve test lint docs bench bench-growth micro demo bench-device soak fuzz compile clean setup-tests

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

serve: $(VENV)/.serve
	$(BIN)/ds serve --data ./data $(SERVE_ARGS)

test: setup-tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.lint
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/mypy || status=1; exit $$status

docs: $(VENV)/.docs
	@$(BIN)/python -m tests.tools.docs $(ARGS)

bench: $(VENV)/.serve
	$(BIN)/python -m tests.bench $(ARGS)

bench-growth: $(VENV)/.test
	@$(BIN)/python -m tests.bench.growth $(ARGS)

micro: $(VENV)/.test
	$(BIN)/python micro/build.py $(ARGS)

demo: $(VENV)/.test
	@$(BIN)/python -m tests.demo $(ARGS)

bench-device: $(VENV)/.test
	@$(BIN)/python -m tests.bench.device $(ARGS)

CYCLES ?= 500
SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

soak: $(VENV)/.test
	$(BIN)/python -m tests.faults.kill --cycles $(CYCLES) --seed $(SEED)
	$(BIN)/python -m tests.faults.power --points $(CYCLES) --seed $(SEED)
	$(BIN)/python -m tests.faults.errors --cycles $(CYCLES) --seed $(SEED)
	$(BIN)/python -m tests.faults.corruption --seed $(SEED)
	$(BIN)/python -m tests.faults.room
	DS_TEST_FAULTS=1 $(BIN)/python -m pytest -q tests/micro/test_file_systems.py

SECONDS := $(or $(SECONDS),60)

fuzz: $(VENV)/.fuzz
	@for target in tests/fuzz/fuzz_*.py; do \
		name=$${target#tests/fuzz/fuzz_}; name=$${name%.py}; \
		mkdir -p build/fuzz/$$name; \
		$(BIN)/python $$target -max_total_time=$(SECONDS) -artifact_prefix=build/fuzz/$$name- \
			build/fuzz/$$name tests/fuzz/corpus/$$name || exit 1; done

COMPILED := $(patsubst %,ds_core/server/%.py,cursors fields heads offsets producers reads responses targets) \
	ds_core/wire/media.py ds_core/wire/names.py

compile: $(VENV)/.serve
	$(PIP) install 'mypy>=1.15' 'setuptools>=77'
	rm -rf build/compiled && mkdir -p build/compiled && cp -r ds_core build/compiled
	cd build/compiled && $(CURDIR)/$(BIN)/mypyc --ignore-missing-imports $(COMPILED)
	cp build/compiled/*.so .
	for room in server wire; do cp build/compiled/ds_core/$$room/*.so ds_core/$$room; done

clean:
	rm -f *__mypyc.*.so ds_core/server/*.so ds_core/wire/*.so
	rm -rf $(VENV) build/micro build/docs build/fuzz build/compiled tests/node_modules tests/.node.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Node and MicroPython run parts of the suite. Without them those parts are skipped, except under CI.
setup-tests: $(VENV)/.test
	@$(BIN)/python tests/tools/node.py $(if $(HEADLESS),,|| echo "(the tests that need it will be skipped)")
	@$(BIN)/python tests/tools/micropython.py $(if $(HEADLESS),,|| echo "(the tests that need it will be skipped)")

$(VENV)/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer was not found. Debian, Ubuntu, Raspberry Pi OS: sudo apt install python3 python3-venv"; \
		echo "(Debian 12, Ubuntu 24.04 or newer); macOS: brew install python. Or: make PYTHON=/path/to/python3.12"; \
		exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or newer. Install one, or: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. Debian, Ubuntu, Raspberry Pi OS: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.python pyproject.toml
	$(PIP) install --editable '.[speed]'
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	$(PIP) install --editable '.[speed,test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.python pyproject.toml
	$(PIP) install --editable '.[speed,docs]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(PIP) install atheris
	@touch $@

$(VENV)/.lint: $(VENV)/.python pyproject.toml
	$(PIP) install --editable '.[speed,lint]'
	@touch $@
