# Two commands on a fresh machine: `make demo` and `make test`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
OUT ?= service
PORT ?= 50051
TRITON_PORT ?= 8001
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROTOC = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos -I$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
PROTOS := $(wildcard protos/diptych/v1/*.proto)

.PHONY: help setup demo serve triton test bench check lint types check-protos check-deploy protos clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t16

# One virtual environment, filled in two steps: what serving needs (no torch), then the rest.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/gateway.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[gateway]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/gateway.stamp

setup: $(VENV)/dev.stamp ## fill .venv with everything

demo: $(VENV)/gateway.stamp ## embed and score pictures through a real server, then stop it
	@$(BIN)/diptych demo

serve: $(VENV)/gateway.stamp ## serve model_repository on 127.0.0.1:$(PORT)
	$(BIN)/diptych serve --host 127.0.0.1 --port $(PORT)

# A real tritonserver, in a virtual environment of its own: its Python backend needs numpy 1.
.venv-triton/installed.txt: constraints-triton.txt | $(VENV)/gateway.stamp
	$(BIN)/python -c "from diptych.engines.triton_install import install; install()"
	@touch $@

triton: $(VENV)/gateway.stamp ## serve model_repository with a real tritonserver on 127.0.0.1:$(TRITON_PORT)
	$(BIN)/diptych triton --port $(TRITON_PORT)

# Two things at a time: types are checked while environments fill, and each test process has a core.
test: $(VENV)/dev.stamp ## everything that proves this works
	@$(MAKE) --no-print-directory --jobs 2 --output-sync check .venv-triton/installed.txt
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

bench: $(VENV)/dev.stamp .venv-triton/installed.txt ## throughput and latency beside what the machine can do
	$(BIN)/python -m bench

check: lint types check-protos check-deploy ## lint, types, protos, deployment

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev.stamp
	$(BIN)/mypy

check-protos: $(VENV)/dev.stamp
	$(PROTOC) --include_imports --include_source_info --descriptor_set_out=$(VENV)/protos.binpb $(PROTOS)
	$(BIN)/buf lint $(VENV)/protos.binpb --config protos/buf.yaml
	for proto in $(PROTOS); do $(BIN)/buf format --exit-code --diff $$proto || exit 1; done

# In an environment of its own: checkov's pins would hold back everybody else's.
.venv-deploy/ready: deploy/tools/requirements.txt deploy/tools/package-lock.json deploy/rendering.py
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r deploy/tools/requirements.txt
	.venv-deploy/bin/python -m deploy.rendering
	@touch $@

check-deploy: .venv-deploy/ready ## images, manifests and alerts, as far as no cluster is needed
	.venv-deploy/bin/python -m deploy.check

protos: $(VENV)/dev.stamp ## write the Python for protos/ into service/ (or OUT=...)
	$(PROTOC) --python_out=$(OUT) --pyi_out=$(OUT) --grpc_python_out=$(OUT) --mypy_grpc_out=$(OUT) $(PROTOS)

clean: ## remove what setup made
	rm -rf $(VENV) .venv-deploy .venv-prometheus
