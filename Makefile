# RSO: what a developer or a newcomer runs. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
RUN := $(VENV)/bin
# pip is asked for uv only where there is none.
UV := $(shell command -v uv 2>/dev/null || echo $(CURDIR)/.venv-uv/bin/uv)
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && { command -v $$p; break; }; done)
PEERS := chromium:chromium curl:curl dcmtk:storescu hylafax-server:faxq kannel:bearerbox kannel-extras:/usr/lib/kannel/test/fakesmsc lftp:lftp poppler-utils:pdftoppm zbar-tools:zbarimg orthanc:Orthanc postgresql:pg_ctlcluster strace:strace

.PHONY: help venv peers test check demo proof bench screens lock clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.made  ## build .venv with everything RSO needs

$(VENV)/.made: uv.lock pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "RSO needs Python 3.11, 3.12 or 3.13; none was found"; exit 1; }
	@if ! test -x "$(UV)" && ! command -v uv >/dev/null; then \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	    else echo "Python's venv module is missing: install python3-venv"; exit 1; fi; }; \
	  $(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install -q uv; \
	fi
	$(UV) sync --quiet --locked --compile-bytecode --python $(PYTHON)
	@touch $@

peers:
	@missing=""; for p in $(PEERS); do PATH="$$PATH:/usr/sbin" command -v $${p#*:} >/dev/null || missing="$$missing $${p%%:*}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing the peers of the tests:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "not installed, so their tests are skipped:$$missing"; fi; fi

test: venv peers  ## run the tests (installs peers as root on Debian)
	@failed=0; \
	$(RUN)/pytest -q -m "not proof and not alone" -n auto --maxprocesses 4 --dist worksteal || failed=1; \
	$(RUN)/pytest -q -m "not proof and alone" || failed=1; exit $$failed

check: venv  ## lint, formatting, types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

demo: venv  ## play the whole story on this machine
	$(RUN)/rso demo $(ARGS)

proof: venv peers  ## the long forms of the promises' tests
	$(RUN)/pytest -q -m proof -rfEP --show-capture=stdout

bench: venv peers  ## measure against DCMTK and Orthanc, as ratios
	$(RUN)/python bench/run.py $(ARGS)

screens: venv peers  ## renew the pictures of the manual, and a sheet of every page
	$(RUN)/python docs/screens/renew.py $(ARGS)

lock:  ## renew uv.lock after a change of dependencies
	$(UV) lock

clean:  ## remove what was built
	rm -rf $(VENV) .venv-uv .mypy_cache .ruff_cache .pytest_cache
