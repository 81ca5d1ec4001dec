# Every target works on a fresh Debian or Ubuntu with Python 3.11 or later: what is missing is asked of apt and PyPI.
.PHONY: setup demo test test-slow serve bench bench-memory bench-objects fuzz lint format lock
.DEFAULT_GOAL := help

PYTHON ?= python3
WEIR := .venv/bin/weir
STAMP := .venv/.installed
OFF_THE_WIRE := restarts faulty_store lookups user_steps reading parquet_inputs
SERVED := $(filter-out $(OFF_THE_WIRE:%=tests/flows/test_%.py), $(wildcard tests/flows/test_*.py)) \
  tests/test_readme.py tests/test_workers.py
FUZZ ?= framing csv ndjson arrow parquet
FUZZ_SECONDS ?= 900

help:
	@echo "make demo    TPC-H lineitem through a server, with figures"
	@echo "make test    lint, types and the whole suite"
	@echo "make serve   a server on http://127.0.0.1:8080"
	@echo "make bench   the wire beside nginx, Go, Node, stock Starlette and C; tables beside DuckDB, Polars, DataFusion"
	@echo "make fuzz    a quarter of an hour of made-up input for every reader; FUZZ='csv ndjson' names some"
	@echo "make bench-memory, make bench-objects, make test-slow, make lint, make format, make lock"

setup: $(STAMP)

$(STAMP): requirements-dev.lock pyproject.toml hatch_build.py $(wildcard app/framing/native/*.[ch])
	@deploy/prerequisites.sh $(PYTHON)
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: setup
	@.venv/bin/python -m bench.demo

test: lint
	@deploy/prerequisites.sh $(PYTHON) nginx haproxy postgres
	@.venv/bin/python -m tests.object_store.install
	@.venv/bin/python -m pytest -q -n 2
	@echo "once more what needs a server, on uvicorn's own protocol"
	@WEIR_TEST_WIRE=stock .venv/bin/python -m pytest -q -n 2 $(SERVED)

test-slow: setup
	@deploy/prerequisites.sh $(PYTHON) nginx haproxy postgres
	@.venv/bin/python -m tests.object_store.install
	@.venv/bin/python -m pytest -q -m slow

bench-objects: setup
	@.venv/bin/python -m tests.object_store.install
	@.venv/bin/python -m bench.objects

fuzz: setup
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@for target in $(FUZZ); do mkdir -p .fuzz/$$target && \
	  .venv/bin/python -m tests.fuzz.fuzz_$$target -max_total_time=$$(( $(FUZZ_SECONDS) / $(words $(FUZZ)) )) \
	    -max_len=1000 -len_control=20 -timeout=60 -artifact_prefix=.fuzz/$$target- .fuzz/$$target || exit 1; done

serve: setup
	@$(WEIR) serve

bench: setup
	@.venv/bin/python -m bench.run

bench-memory: setup
	@.venv/bin/python -m bench.memory

lint: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy

format: setup
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

lock:
	@for f in requirements requirements-dev; do \
	  group=$$([ $$f = requirements-dev ] && echo "--group dev"); \
	  uv pip compile pyproject.toml $$group --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --no-emit-find-links -q -o $$f.lock; done
	@echo 'atheris>=3.0,<3.1' | uv pip compile - --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o requirements-fuzz.lock
	@for tool in 'swift>=2.38,<2.39' 'localstack-core[base-runtime]==4.3.0'; do \
	  echo "$$tool" | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links -q -o tests/object_store/$$(echo "$$tool" | sed 's/[^a-z].*//').lock; done
