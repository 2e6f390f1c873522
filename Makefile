# `make demo` and `make test` each work as the first command in a fresh clone. Everything is installed in .venv;
# the files .venv/installed-* say what is there, so that a second call starts at once.

DEMO_ARGS ?=
PYTEST_ARGS ?=
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --no-compile
BUILD_FILES := setup.cfg setup.py pyproject.toml $(foreach end,pyx pxd h c,$(wildcard cython_core/*.$(end)))
SOURCES := $(foreach folder,evsim models protocols data,$(wildcard $(folder)/*.py $(folder)/*/*.py))
PEERS := tests/peers-constraints.txt
TYPES := build/types
# One process for each core; each begins with a stretch of the tests, so that what a file sets up is set up once.
# PYTEST_ARGS="-n 0" runs all in one.
SHARED_OUT := -n auto --dist worksteal

# Python keeps the bytecode of what is imported; to have pip compile every file of SciPy would double the wait.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers test-slow test-browser sanitize validate bench measured bench-continuous lint clean
.DELETE_ON_ERROR:

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: $(VENV)/installed-base ## install the simulator and run the character model
	@$(BIN)/evsim run character_model $(DEMO_ARGS)

test: $(VENV)/installed-dev ## run the tests that need no other simulator
	@$(BIN)/python -m pytest $(SHARED_OUT) -m "not peer and not browser" $(PYTEST_ARGS)

test-peers: $(VENV)/installed-peers ## run the comparisons with Brian2, PyTorch and readers of event logs (installs all)
	@$(BIN)/python -m pytest $(SHARED_OUT) -m "peer and not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/installed-peers ## run the long comparisons with Brian2
	@$(BIN)/python -m pytest $(SHARED_OUT) -m "peer and slow" $(PYTEST_ARGS)

test-browser: $(VENV)/installed-browser ## run the tests of the viewer in Chromium (Debian: apt install chromium)
	@command -v $${CHROMIUM:-chromium} >/dev/null || command -v google-chrome >/dev/null || \
	    { echo "evsim: there is no Chromium to test with: apt install chromium, or set CHROMIUM" >&2; exit 1; }
	@$(BIN)/python -m pytest -m browser $(PYTEST_ARGS)

sanitize: $(VENV)/installed-dev ## run tests of the core under address and undefined-behaviour sanitizers
	@PYTHON=$(BIN)/python tests/sanitize.sh

validate: $(VENV)/installed-peers ## run the matrix of comparisons with Brian2 and write docs/validation.md: 10 to 20 minutes
	@$(BIN)/python -m evsim.brian.validation_page

# What is measured is what users install: a wheel, in which more is compiled, in a .venv of its own.
bench: ## measure speed and memory, beside PyTorch and JAX in the same run: 5 to 15 minutes
	@$(MAKE) --no-print-directory VENV=build/bench-venv measured

measured: $(VENV)/installed-wheel
	@$(BIN)/python benchmarks/speed.py --plot benchmarks/images/speed.png
	@$(BIN)/python benchmarks/speed.py --threads 2 --units 256 1024 --activities 0.1 0.3 --no-more
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/delta_training.py

bench-continuous: $(VENV)/installed-base ## measure continuous time beside eventax, NEST and Brian2 (installs them under build/): 15 minutes
	@$(BIN)/python benchmarks/continuous.py
	@$(BIN)/python benchmarks/cuba.py
	@$(BIN)/python benchmarks/fanout.py

# Type checkers read folders, not editable installs: links under build/ show them the installed layout.
lint: $(VENV)/installed-dev ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint cython_core
	@rm -rf $(TYPES) && mkdir -p $(TYPES)/evsim && ln -s "$(CURDIR)"/evsim/* $(TYPES)/evsim/
	@ln -s "$(CURDIR)/cython_core" $(TYPES)/evsim/core
	@for part in models protocols data; do ln -s "$(CURDIR)/$$part" $(TYPES)/evsim/; done
	@cd $(TYPES) && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/setup.cfg" -p evsim

clean: ## remove all that was built or installed here
	@rm -rf $(VENV) build dist *.egg-info cython_core/*.so .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each contains the one before (the last: but for Brian2); pip and setup.py skip what is there and up to date.

$(VENV)/installed-base: $(VENV)/created $(BUILD_FILES)
	@echo "evsim: installing dependencies, compiling the core"
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/created $(BUILD_FILES)
	@echo "evsim: installing dependencies and test tools, compiling the core"
	@$(PIP) --no-build-isolation -e ".[dev]"
	@touch $@ $(VENV)/installed-base

$(VENV)/installed-peers: $(VENV)/created $(BUILD_FILES) $(PEERS)
	@echo "evsim: installing test tools, Brian2, PyTorch (large) and readers of event logs, compiling the core"
	@$(PIP) --no-build-isolation -e ".[dev,brian2,torch,analysis,readers]" -c $(PEERS)
	@touch $@ $(VENV)/installed-dev $(VENV)/installed-base

$(VENV)/installed-browser: $(VENV)/created $(BUILD_FILES)
	@echo "evsim: installing test tools and playwright, compiling the core"
	@$(PIP) --no-build-isolation -e ".[dev,browser]"
	@touch $@ $(VENV)/installed-dev $(VENV)/installed-base

$(VENV)/installed-wheel: $(VENV)/created $(BUILD_FILES) $(SOURCES) $(PEERS)
	@echo "evsim: building a wheel, installing it with PyTorch and JAX (large)"
	@$(PIP) --no-build-isolation ".[bench]" -c $(PEERS)
	@touch $@

# A .venv that was moved, or whose Python has gone, is made again.
ifneq ($(shell $(BIN)/python -c 'print(open("$(VENV)/created").read())' 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/created
endif

$(VENV)/created:
	$(eval found := $(shell $(look_around)))
	$(if $(filter ready,$(firstword $(found))),,$(error evsim: $(found)))
	@echo "evsim: creating $(VENV) with $(wordlist 2,9,$(found))"
	@$(word 2,$(found)) -m venv --clear $(VENV)
	@$(PIP) $$($(BIN)/python -c "import tomllib; \
	    print(*map(ascii, tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires']))" | tr -d "'")
	@echo "$(CURDIR)" > $@

# Prints "ready PYTHON VERSION", or one line that says what to install. A python3.x on the path may be a
# launcher that finds nothing to launch, so each is tried. Make joins the lines before the shell reads them.
define look_around
for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do
    $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && break;
    python=;
done;
if [ -z "$$python" ]; then
    echo "no Python 3.11 or newer $(if $(PYTHON),in PYTHON=$(PYTHON),found): apt install python3 python3-venv python3-dev";
    exit;
fi;
case $$python in *python3.*) debian=$${python##*/};; *) debian=python3;; esac;
version=$$($$python -c "import platform; print(platform.python_version())");
compiler=$${CC:-$$($$python -c "import sysconfig; print(sysconfig.get_config_var('CC'))")};
headers=$$($$python -c "import sysconfig; print(sysconfig.get_path('include'))");
$$python -c "import ensurepip, venv" 2>/dev/null
    || { missing=" Python's venv module,"; packages=" $$debian-venv"; };
echo "#include <stdio.h>" | $$compiler -x c -fsyntax-only - 2>/dev/null
    || { missing="$$missing a C compiler,"; packages="$$packages build-essential"; };
[ -f "$$headers/Python.h" ]
    || { missing="$$missing Python.h,"; packages="$$packages $$debian-dev"; };
if [ -n "$$missing" ]; then
    echo "$$python $$version lacks$${missing%,}: apt install$$packages";
else
    echo "ready $$python $$version";
fi
endef
