# install  both environments: .venv (Clapboard) and .venv-label-studio (Label Studio, whose pins clash with ours)
# check    formatting, lint, types, import directions
# test     the suite, on real Redis, PostgreSQL, Label Studio and Chromium where they are installed
# demo     Label Studio with pre-labelled clips, in minutes
# bench    measured figures beside named peers: a table, and bench.json
.PHONY: install check test demo bench
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
LABEL_STUDIO := .venv-label-studio/.installed
PEERS := .venv/peers/.installed
INSTALLED := .venv/.installed

help:
	@sed -n '/^#/{s/^# //p}; /^\.PHONY/q' Makefile

install: $(INSTALLED) $(LABEL_STUDIO)

$(INSTALLED): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# Its own pins (Flask 1.1, a false `attr`) would break everything else: `label-studio-ml` in pyproject.toml has them right.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps label-studio-ml
	touch $@

$(LABEL_STUDIO): demo/constraints-label-studio.txt
	test -d .venv-label-studio || $(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/pip install --quiet --constraint demo/constraints-label-studio.txt label-studio
	touch $@

$(PEERS): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	# In a folder of its own, of which the bench reads two modules: it pins numpy 1 and brings a package named `tests`.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps --upgrade --target .venv/peers laion-clap
	touch $@

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	# Three processes on two cores: many tests wait for servers and processes of their own.
	$(BIN)/pytest --numprocesses 3 --dist loadfile

demo: install
	$(BIN)/python -m demo

bench: install $(PEERS)
	$(BIN)/python -m tests.bench
