# install  both environments: .venv (Clapboard) and .venv-label-studio (Label Studio, whose pins clash with ours)
# check    formatting, lint, types, import directions
# test     the suite, on real Redis, PostgreSQL, Label Studio and Chromium where they are installed
# test-fast  what of it needs no server, browser or process, in under a minute: for the loop of a change
# test-real-size  what of it computes models of the published checkpoints' size, in minutes
# docs     the documentation, into build/site, to be opened from there without a network
# demo     Label Studio with pre-labelled clips, in minutes
# bench    measured figures beside named peers: a table, and bench.json
# scale    what has to stay fast at a million jobs and 100,000 tasks, on both databases; fails where a goal is missed
.PHONY: install check test test-fast test-real-size docs demo bench scale
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin

help:
	@sed -n '/^#/{s/^# //p}; /^\.PHONY/q' Makefile

install:
	@$(PYTHON) -m scripts.install dev

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	# Three processes on two cores: many tests wait for servers and processes of their own.
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/pytest --fast --numprocesses 2 --dist worksteal

test-real-size: install
	$(BIN)/pytest --real-size -m real_size

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

demo:
	@$(PYTHON) -m scripts.install demo
	$(BIN)/python -m demo

bench:
	@$(PYTHON) -m scripts.install bench
	$(BIN)/pytest --quiet --real-size -m real_size
	$(BIN)/python -m tests.bench

scale:
	@$(PYTHON) -m scripts.install bench
	$(BIN)/python -m tests.scale $(SCALE)
