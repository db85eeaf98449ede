# Two commands matter: `make demo` sets up and runs the main job, `make test` sets up and passes the tests.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TESTS ?= tests

# Tests start hundreds of processes, each of which would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-kubernetes testbed testbed-programs test test-others check format lock reference sbom scan clean

help:  ## this list
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## virtual environment with everything, pinned and hashed

$(STAMP): requirements/all.txt requirements/bootstrap.txt pyproject.toml scripts/setup
	@PYTHON=$(PYTHON) scripts/setup $(VENV)

demo: $(STAMP)  ## the main job: train, deploy, predict, bill
	@$(PY) scripts/demo.py

demo-kubernetes: $(STAMP)  ## the same in real containers on a real Kubernetes, built once in about ten minutes
	@PYTHONPATH=. $(PY) scripts/demo_kubernetes.py

testbed: $(STAMP)  ## a real Kubernetes on this machine until Ctrl-C; NODES=10 hollow ones, REAL=0 or 1
	@scripts/ensure-containerd
	@$(PY) -m testbed --nodes $(or $(NODES),10) $(if $(REAL),--real-nodes $(REAL))

testbed-programs: $(STAMP)  ## build what the test bed runs: once, about ten minutes
	@$(PY) -m testbed build
	@scripts/ensure-containerd

test: $(STAMP)  ## all tests, PostgreSQL and a browser included
	@scripts/ensure-postgresql
	@scripts/ensure-chromium
	@scripts/ensure-identity-provider
	@if [ "$(CI)" = true ]; then $(MAKE) --no-print-directory testbed-programs; \
	elif $(PY) -m testbed is-built; then scripts/ensure-containerd; fi
	@$(PY) -m pytest -q -n 4 --dist loadgroup $(TESTS)

test-others: $(STAMP)  ## API servers of the oldest and the newest version that is supported, and the operator of Ray; built once in about fifteen minutes
	@$(PY) -m testbed build --others
	@$(PY) -m pytest -q tests/others

check: $(STAMP)  ## format, lint, types, import contracts
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(STAMP)  ## format and mend what can be mended
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

reference: $(STAMP)  ## generate docs/reference and the roles of deploy/ from the code
	@$(PY) scripts/generate_reference.py

bench-%: $(STAMP)  ## one benchmark, e.g. bench-submit, or bench-kubernetes-replicas ARGS="--minutes 2"
	@$(PY) -m benchmarks.$(subst -,_,$*) $(ARGS)

lock: $(STAMP)  ## compile pyproject.toml into requirements/
	@$(VENV)/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--all-extras --group dev pyproject.toml -o requirements/all.txt
	@$(VENV)/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--extra fast --extra postgres --extra serving -c requirements/all.txt pyproject.toml -o requirements/image.txt

sbom: $(STAMP)  ## what it is made of, as CycloneDX: build/sbom-all.json with all tools, build/sbom-image.json as shipped
	@mkdir -p build
	@for lock in all image; do $(VENV)/bin/uv tool run -q --from cyclonedx-bom==7.1.0 cyclonedx-py requirements \
		--output-reproducible -o build/sbom-$$lock.json requirements/$$lock.txt || exit 1; done

scan: $(STAMP)  ## packages that are known to be vulnerable: fails with their names, or says that nothing could be scanned
	@$(PY) scripts/scan.py $(ARGS)

clean:  ## remove the virtual environment and all caches
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
