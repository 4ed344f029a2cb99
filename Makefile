# The commands people type. `make demo` and `make test` need nothing but a Debian 12 or 13 and root.
.PHONY: help demo demo-down test simulate bench bench-page check format pages docs venv dev-venv

PYTHON ?= $(shell command -v /usr/bin/python3 || command -v python3)
UV_VERSION := 0.13.9
BIN := .venv/bin
# The lock file is the only word on versions; nothing outside .venv is touched.
UV := UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(BIN)/uv
# As pip leaves an installed package. A Python that is told to write no bytecode would compile at every start.
COMPILE := $(BIN)/python -m compileall -q core/src plugins/*/src

help:
	@echo "make demo       set up everything, install WordPress with its database, print what to try next"
	@echo "make demo-down  remove every trace of the demo"
	@echo "make test       lint, types, all tests (root: with real containers)"
	@echo "make simulate   random stories of the whole control plane: SEEDS=10000 for many, SEED=4711 to see one again"
	@echo "make check      lint and types only"
	@echo "make pages      write docs/catalogue anew from the recipes"
	@echo "make docs       build the documentation as a site, in .cache/site/html"
	@echo "make bench      how fast it is, beside its peers; ONLY=name for one measure"
	@echo "make bench-page draw the newest results into docs/numbers.md"

$(BIN)/uv: packaging/apt-packages.txt
	@packaging/apt-install packaging/apt-packages.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/.node: $(BIN)/uv uv.lock core/pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@$(UV) sync --quiet --frozen --inexact --no-default-groups --compile-bytecode
	@touch $@

.venv/.dev: $(BIN)/uv uv.lock core/pyproject.toml pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@$(UV) sync --quiet --frozen --inexact --compile-bytecode
	@touch $@

venv: .venv/.node
	@$(COMPILE)
dev-venv: .venv/.dev
	@$(COMPILE)

demo: venv
	@packaging/apt-install packaging/apt-packages.txt
	@$(BIN)/python packaging/demo.py up

demo-down:
	@if [ -x $(BIN)/nanocloud ]; then $(BIN)/python packaging/demo.py down; else echo "no demo here"; fi

check: dev-venv
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Images of the catalogue are built below .cache once, and reused.
test: check
	@packaging/apt-install packaging/apt-packages.txt packaging/apt-packages-test.txt
	@NANOCLOUD_TEST_STATE=$(CURDIR)/.cache/images $(BIN)/pytest --numprocesses auto \
	  --dist loadgroup --no-loadscope-reorder

# Without SEED: SEEDS stories from FIRST on, on all cores; those that break a promise are named.
simulate: dev-venv
	@$(BIN)/python -m nanocloud.testkit.simulation \
	  $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0))

pages: dev-venv
	@$(BIN)/python -m nanocloud_dockyard.pages docs/catalogue

docs: dev-venv
	@$(BIN)/python docs/sphinx/build.py .cache/site
	@echo "the site is in .cache/site/html"

bench: dev-venv
	@packaging/apt-install packaging/apt-packages.txt packaging/apt-packages-bench.txt
	@$(BIN)/python bench/run.py $(ONLY)

bench-page: dev-venv
	@$(BIN)/python bench/page.py

format: dev-venv
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
