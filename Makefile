# Two commands do everything: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The one that made .venv, otherwise the newest that will do; make PYTHON=/path/to/python takes another.
WILL_DO := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in $(BIN)/python python3.13 python3.12 python3.11 python3; do \
  if "$$python" -c '$(WILL_DO)' > /dev/null 2>&1; then command -v "$$python"; break; fi; done)
PORT ?= 3000
# not ?=, because conda and some shells export a HOST that is another thing
HOST := 127.0.0.1
URL ?= http://127.0.0.1:$(PORT)
# TORCH=cpu or cuda: which build; TORCH_INDEX: address of an index with CPU builds. Without them training/install.py decides.
export TORCH TORCH_INDEX
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
export BENTOML_DO_NOT_TRACK := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

# What a model's lineage needs: said before minutes of installing, not after them.
.PHONY: source
source:
	@$(if $(PYTHON),$(PYTHON) -m training.common.source >/dev/null)

.PHONY: run
run: source $(INSTALLED) ## install, run the pipeline, serve the champion on port 3000 (PORT=...)
	@python -m training.run --port $(PORT)

# Files in the order of their folders, not of their number of tests: those with few but long tests begin first.
.PHONY: test
test: $(INSTALLED) ## run the whole test suite
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: test-bare
test-bare: $(INSTALLED) ## run the whole test suite as on a machine with nothing but Python, make and git
	python -m tests.bare make test

.PHONY: test-parts
test-parts: $(INSTALLED) ## only the tests that need real parts, such as Prometheus or a browser: `make tools` installs them
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m needs

.PHONY: tools
tools: $(INSTALLED) ## install the real parts that some tests need; PARTS="node curl" for some of them
	python -m tests.tools $(PARTS)

.PHONY: coverage
coverage: $(INSTALLED) ## run the whole test suite with coverage: a table, and coverage.xml
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-report=xml

.PHONY: coverage-report
coverage-report: $(INSTALLED) ## print the last coverage as a table in Markdown
	@coverage report --format=markdown

.PHONY: audit
audit: $(INSTALLED) ## check the locked dependencies for known vulnerabilities (asks the advisory database on the internet)
	pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r requirements-torch.lock

.PHONY: pipeline
pipeline: source $(INSTALLED) ## run the pipeline only: pictures -> registered, promoted champion
	dvc repro

.PHONY: serve
serve: $(INSTALLED) ## serve the champion on port 3000 (PORT=...) of this machine; HOST=0.0.0.0 opens it to the network: set API_KEYS
	@python -m training.registry.bento_store
	@python -m training.common.port --host $(HOST) $(PORT)
	bentoml serve --host $(HOST) --port $(PORT)

.PHONY: status
status: $(INSTALLED) ## show which model is champion, and whether all stores agree
	python -m training.registry status

.PHONY: clean-cache
clean-cache: $(INSTALLED) ## empty .cache: decoded pictures, features, scores, downloads; all of it can be made again
	python -m data.cache --clean

.PHONY: ui
ui: $(INSTALLED) ## serve MLflow's pages on port 5000
	@python -m training.registry.moved
	mlflow ui --port 5000

.PHONY: image
image: $(INSTALLED) ## build the champion's Bento and container image
	python -m training.image

.PHONY: sbom
sbom: $(INSTALLED) ## list what an image contains, in sbom.cdx.json (CycloneDX); IMAGE=NAME:TAG
	SYFT_CHECK_FOR_APP_UPDATE=false syft scan --quiet docker:$(or $(IMAGE),$(error IMAGE=NAME:TAG is missing)) --output cyclonedx-json=sbom.cdx.json

.PHONY: load
load: $(INSTALLED) ## load-test the running service on PORT (URL=...) for 30 s; errors or a slow p95 fail
	locust -f tests/load/locustfile.py --headless --users 8 --spawn-rate 8 --run-time 30s --host $(URL)

.PHONY: bench
bench: $(INSTALLED) .venv-peers/installed .venv-mlserver/installed ## benchmark the service next to its peers (about an hour)
	python -m tests.load.bench compare

.venv-peers/installed: tests/load/peers/requirements.txt $(INSTALLED)
	$(BIN)/python -m venv .venv-peers
	site="import sysconfig; print(sysconfig.get_path('purelib'))"; \
	  $(BIN)/python -c "$$site" > "$$(.venv-peers/bin/python -c "$$site")/project.pth"
	.venv-peers/bin/python -m pip install --disable-pip-version-check -r $<
	touch $@

.venv-mlserver/installed: tests/load/peers/requirements-mlserver.txt
	$(PYTHON) -m venv .venv-mlserver
	.venv-mlserver/bin/python -m pip install --disable-pip-version-check -r $<
	touch $@

.PHONY: smoke
smoke: $(INSTALLED) ## smoke-test the running service on PORT (URL=...)
	python tests/smoke/smoke.py --url $(URL) --fail-on-error

.PHONY: manifests
manifests: $(INSTALLED) ## update the manifests; IMAGE=, CANARY= write a released image's digest into them
	python -m k8s.manifests $(if $(IMAGE),--image $(IMAGE)) $(if $(CANARY),--canary $(CANARY))

.PHONY: check
check: $(INSTALLED) ## lint, format, types and import boundaries
	ruff check .
	ruff format --check .
	mypy
	lint-imports

.PHONY: quick
quick: check ## `make check` and the quick unit tests, in half a minute
	python -m pytest tests/unit -n 2 -m 'not torch and not slow'

.PHONY: hooks
hooks: $(INSTALLED) ## run `make quick` before every push (lefthook.yml)
	lefthook install

.PHONY: install
install: $(INSTALLED) ## create .venv with the locked dependencies

# Run every time: it does nothing where .venv is as the locks say, and leaves the file's date as it is.
$(INSTALLED): FORCE
	@$(or $(PYTHON),$(error Python 3.11, 3.12 or 3.13 with its module venv is needed (Debian, Ubuntu: apt-get install python3-venv): make PYTHON=/path/to/python)) training/install.py

FORCE:

# What only comes with torch is locked apart, so that a CPU build of torch can take its place. One lock holds for Linux
# and macOS and each Python from 3.11: tests/unit/test_locks.py asks the resolver.
.PHONY: lock
lock: COMPILE := uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url
lock: $(INSTALLED) ## regenerate the locks from pyproject.toml, for every platform; UPGRADE=--upgrade for newer versions
	cat requirements-torch.lock requirements.lock > $(VENV)/all.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --all-extras -o $(VENV)/all.lock
	grep -ohE '^torch(vision)?==[0-9.]+' $(VENV)/all.lock | $(COMPILE) - -c $(VENV)/all.lock -o requirements-torch.lock
	$(COMPILE) pyproject.toml --all-extras -c $(VENV)/all.lock -o requirements.lock \
	  $$(grep -ohE '^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+|triton|torch|torchvision)==' requirements-torch.lock | sed 's/==//; s/^/--no-emit-package /')
	$(COMPILE) pyproject.toml --extra serve -c $(VENV)/all.lock -o requirements-serve.lock
