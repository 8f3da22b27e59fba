# Needs Python 3.10 or newer and make, nothing else: every target builds the environment that it uses.
# PYTHON chooses the interpreter of .venv when it is built: `make clean && make test PYTHON=python3.12`.
PYTHON ?= python3

BIN := .venv/bin
UV := $(BIN)/uv
UV_INSTALL := $(UV) pip install --quiet
COMPILE := $(UV) pip compile --quiet --upgrade --no-emit-index-url --no-annotate --custom-compile-command "make constraints"
EXTRAS := cli,demo,dataframe,server,clickhouse

# Interpreters are used as they are found on the machine, never fetched.
export UV_PYTHON_DOWNLOADS := never
# An environment that is active in the caller's shell has no say here.
unexport VIRTUAL_ENV
unexport PYTHONPATH

# The other Pythons that are tested. The first of a release is as good as its last: 3.12.0 warns where 3.12.4 does not.
PYTHONS := oldest between newest
PYTHON_oldest := 3.10
PYTHON_between := 3.12
PYTHON_newest := 3.13

# The path of Python $(1), where this machine has one; pyenv gives it only when asked by name.
find_python = PYENV_VERSION=$(1) python$(1) -c 'import sys; print(sys.executable)' 2>/dev/null || \
  $(UV) python find --system --quiet $(1) 2>/dev/null

# Vendors whose SDK we also join, all of those whose SDK judges our requests, and those whose server does.
SDKS := langfuse langwatch galileo arize
JUDGES := $(SDKS) splunk-ao
SERVERS := mlflow phoenix
# Packages that set up tracing by themselves, as those of SDKS do, and that we join.
JOINED := phoenix-otel logfire ddtrace
# Environments that are installed like those of the SDKs: a group and a constraint file of that name. The SDK of
# traceloop, and those of SDKS and JOINED that are a vendor's, send to our server.
GROUPS_APART := $(JUDGES) $(JOINED) traceloop frameworks workers browser
BACKENDS_NEED := $(GROUPS_APART) $(SERVERS) schemathesis clickhouse

STRESS_COUNTED := every_write damage kill_nine soak malformed forks
STRESS_TIMED := backend_down shutdown server_patches

# Two targets side by side, each one's output in one piece.
AT_ONCE := $(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=recurse)

heading = @printf '\n== %s\n'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test coverage test-first-half test-second-half test-openai-v2 check fix bench stress test-ends \
  test-second-half-and-openai-v2 test-page test-browser screenshots vendor $(PYTHONS:%=test-%-if-there) $(PYTHONS:%=test-%) \
  $(STRESS_COUNTED:%=stress-%) $(STRESS_TIMED:%=stress-%) \
  test-backends test-engine-and-browser test-sdks-and-servers test-workers test-clickhouse wheel-test constraints clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed ## watch metadata reach spans live, in flight and late; works offline
	@$(BIN)/otel-metadata demo

test: .venv/.installed .venv-openai-v2/.installed ## run all tests; two runs at once, a few minutes
	@printf '\nTwo runs at once; what each prints comes when it ends, after a few minutes.\n'
	@$(AT_ONCE) test-first-half test-second-half-and-openai-v2
	@$(MAKE) --no-print-directory test-page

# Watching every branch doubles what the tests take.
coverage: .venv/.installed ## run all tests with branch coverage
	@$(BIN)/coverage erase
	@$(AT_ONCE) RUN="$(BIN)/coverage run" test-first-half test-second-half-and-openai-v2; status=$$?; \
	  $(BIN)/coverage combine --quiet; $(BIN)/coverage report; exit $$status

RUN := $(BIN)/python
WITH :=
# By the time that they take: these are half of all.
FIRST_HALF := tests/live tests/delivery tests/spool tests/stress tests/server
LEFT_OUT :=

test-first-half: .venv/.installed
	$(heading) "tests, first half: $(FIRST_HALF)$(WITH)"
	@$(RUN) -m pytest $(FIRST_HALF) $(LEFT_OUT:%=--ignore=%)

test-second-half: .venv/.installed
	$(heading) "tests, second half: all others$(WITH)"
	@$(RUN) -m pytest tests $(FIRST_HALF:%=--ignore=%) $(LEFT_OUT:%=--ignore=%)

test-second-half-and-openai-v2: test-second-half
	@$(MAKE) --no-print-directory test-openai-v2

test-openai-v2: .venv-openai-v2/.installed ## run the instrumentor tests against opentelemetry-instrumentation-openai-v2
	$(heading) "instrumentor tests, environment openai-v2"
	@OTEL_METADATA_TEST_INSTRUMENTORS=openai_v2 .venv-openai-v2/bin/python -m pytest tests/instrumentors

# The modules of the page that need no browser. Node is a tool of the tests only: the page has no build.
test-page: ## run the tests of the page's own modules with Node
	$(heading) "modules of the page, Node"
	@if command -v node >/dev/null; then node --test tests/page/*.test.js; \
	  else echo "NOT RUN: node is not on this machine."; fi

test-browser: .venv-browser/.installed ## open the page in Chromium; on loopback
	$(heading) "the page in Chromium"
	@if ! command -v npm >/dev/null; then echo "NOT RUN: npm is not on this machine."; \
	  elif [ -z "$$CHROMIUM" ] && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then \
	    echo "NOT RUN: chromium is not on this machine; install it, or name the program in CHROMIUM."; \
	  else $(MAKE) --no-print-directory node_modules/.installed && \
	    OTEL_METADATA_TEST_BACKENDS=1 .venv-browser/bin/python -m pytest tests/browser; fi

screenshots: .venv-browser/.installed ## make pictures of every state of the page, and those of the README; Chromium
	$(heading) "pictures of the page, in build/screenshots and docs/images"
	@.venv-browser/bin/python scripts/screenshots.py

check: .venv/.installed ## check format, lint, types and layers
	$(heading) "format"
	@$(BIN)/ruff format --check .
	$(heading) "lint"
	@$(BIN)/ruff check .
	$(heading) "types, mypy strict"
	@$(BIN)/mypy src $(wildcard tests/typing)
	$(heading) "types of the public interface as editors see them, pyright"
	@if [ -d tests/typing ]; then $(BIN)/basedpyright tests/typing; \
	  else echo "NOT RUN: there is no folder tests/typing."; fi
	$(heading) "types of the page, tsc"
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory node_modules/.installed && node_modules/.bin/tsc -p tests/page; \
	  else echo "NOT RUN: npm is not on this machine."; fi
	$(heading) "layers"
	@$(BIN)/lint-imports --no-cache --no-logo

fix: .venv/.installed ## format, and repair what the linter can repair
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: .venv/.installed ## run every benchmark; each prints ratios
	@for file in $(wildcard benchmarks/[!_]*.py); do \
	  printf '\n== %s\n' "$$file"; $(BIN)/python "$$file" || exit 1; done

# LONG=1 for an outage of ten minutes, a soak of five and finer cuts. All of them run, also after one has failed; those
# that only count run two at once, those that also measure time run alone.
stress: .venv/.installed ## kill, starve, fork and damage it, and count what is lost; LONG=1 for the long forms
	@status=0; $(AT_ONCE) --keep-going $(STRESS_COUNTED:%=stress-%) || status=1; \
	  $(MAKE) --no-print-directory -j1 --keep-going $(STRESS_TIMED:%=stress-%) || status=1; exit $$status

$(STRESS_COUNTED:%=stress-%) $(STRESS_TIMED:%=stress-%): stress-%:
	$(heading) "stress/$*.py"
	@start=$$(date +%s); status=0; LONG="$(LONG)" $(BIN)/python -m "stress.$*" || status=1; \
	  printf '%s s\n' "$$(($$(date +%s) - start))"; exit $$status

test-ends: | $(UV) ## run the tests with Python 3.10, 3.12 and 3.13, with the oldest and the newest OpenTelemetry
	@status=0; for one in $(PYTHONS); do \
	  $(MAKE) --no-print-directory "test-$$one-if-there" || status=1; done; exit $$status

$(PYTHONS:%=test-%-if-there): test-%-if-there: | $(UV)
	@if python=$$($(call find_python,$(PYTHON_$*))); then $(MAKE) --no-print-directory test-$*; \
	  else printf '\n== tests, $*\nNOT RUN: Python $(PYTHON_$*) is not on this machine.\n'; fi

# What another Python and other releases of packages cannot change: files of the page, sent as they are.
LEFT_OUT_oldest := tests/server/test_page.py
LEFT_OUT_newest := $(LEFT_OUT_oldest)
# 3.12 has the same packages as .venv and 3.13 have. So what is left out there is what depends on packages: other
# pipelines (joining) and instrumentors in the process, the attributes that each backend and dialect wants; and the
# programs of the documents, which run on the oldest and on the newest Python.
LEFT_OUT_between := $(LEFT_OUT_oldest) tests/joining tests/instrumentors tests/backends tests/dialects tests/test_docs.py
# Without those, the second half has room.
test-between: FIRST_HALF := tests/live tests/delivery tests/spool tests/server

# The first: OpenTelemetry 1.30, every floor of pyproject.toml. The others: everything as in constraints.txt.
# `make test` has tried more examples of each property.
test-oldest: export OTEL_METADATA_TEST_INSTRUMENTORS := openinference
$(PYTHONS:%=test-%): test-%: .venv-%/.installed
	@HYPOTHESIS_PROFILE=brief $(AT_ONCE) RUN=".venv-$*/bin/python" WITH=", Python $(PYTHON_$*)" \
	  FIRST_HALF="$(FIRST_HALF)" LEFT_OUT="$(LEFT_OUT_$*)" test-first-half test-second-half

test-backends: .venv/.installed ## run what needs a vendor's own SDK or server, or a framework; on loopback
	@$(AT_ONCE) $(BACKENDS_NEED:%=.venv-%/.installed)
	@printf '\nTwo runs at once; what each prints comes when it ends, after a few minutes.\n'
	@$(AT_ONCE) test-engine-and-browser test-sdks-and-servers

test-engine-and-browser:
	@$(MAKE) --no-print-directory --keep-going test-clickhouse test-browser

# Every suite runs, also after one has failed.
test-sdks-and-servers:
	@status=0; for sdk in $(JUDGES); do \
	  printf '\n== backends, the SDK of %s as judge of the wire\n' "$$sdk"; \
	  OTEL_METADATA_TEST_BACKENDS=1 ".venv-$$sdk/bin/python" -m pytest \
	    "tests/oracles/test_$$(echo "$$sdk" | tr - _).py" || status=1; done; \
	  for one in $(SDKS) $(JOINED); do \
	  printf '\n== backends, an application that %s set up\n' "$$one"; \
	  OTEL_METADATA_TEST_BACKENDS=1 ".venv-$$one/bin/python" -m pytest \
	    "tests/joined/test_$$(echo "$$one" | tr - _).py" || status=1; done; \
	  printf '\n== the SDKs of vendors, sending to our server\n'; \
	  OTEL_METADATA_TEST_BACKENDS=1 $(BIN)/python -m pytest tests/sdks || status=1; \
	  printf '\n== our server, asked what its OpenAPI document allows, and what it does not\n'; \
	  OTEL_METADATA_TEST_BACKENDS=1 $(BIN)/python -m pytest tests/server/test_schemathesis.py || status=1; \
	  printf '\n== backends, real servers\n'; \
	  OTEL_METADATA_TEST_BACKENDS=1 $(BIN)/python -m pytest tests/servers tests/oracles/test_phoenix.py || status=1; \
	  printf '\n== web frameworks, task queues, event loops\n'; \
	  OTEL_METADATA_TEST_BACKENDS=1 .venv-frameworks/bin/python -m pytest tests/frameworks || status=1; \
	  $(MAKE) --no-print-directory test-workers || status=1; exit $$status

test-workers: .venv-workers/.installed ## run what needs Celery, gunicorn, uvicorn and joblib; on loopback
	$(heading) "worker processes of Celery, gunicorn, uvicorn and joblib"
	@OTEL_METADATA_TEST_BACKENDS=1 .venv-workers/bin/python -m pytest tests/workers

test-clickhouse: .venv/.installed .venv-clickhouse/.installed ## run the ClickHouse store against the embedded engine; on loopback
	$(heading) "backends, the embedded ClickHouse engine behind an HTTP front"
	@HYPOTHESIS_PROFILE=brief OTEL_METADATA_TEST_BACKENDS=1 $(BIN)/python -m pytest tests/clickhouse

# Outside the tree, so that neither src/ nor a development dependency can help the import.
wheel-test: .venv/.installed ## build the wheel, install it alone into an empty environment, import it
	$(heading) "wheel: build, install with runtime dependencies and the cli extra, import"
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(UV) build --quiet --wheel --build-constraint constraints.txt --out-dir "$$folder" && \
	  $(UV) venv --quiet --python $(BIN)/python "$$folder/venv" && \
	  $(UV_INSTALL) --python "$$folder/venv" --constraint constraints.txt "$$(ls "$$folder"/*.whl)[cli]" && \
	  $(UV) pip check --quiet --python "$$folder/venv" && \
	  cd "$$folder" && \
	  venv/bin/python -c 'import otel_metadata; print("imported otel-metadata", otel_metadata.__version__, "from its wheel")'

vendor: ## fetch the libraries of the page again, as vendored.json pins them
	@$(PYTHON) scripts/vendor.py

constraints: $(UV) ## compile the constraint files again, with the newest versions
	$(heading) "constraints.txt"
	@$(COMPILE) --universal --python-version 3.10 pyproject.toml \
	  --group dev --extra demo --extra dataframe --extra server --extra clickhouse --output-file constraints.txt
	$(heading) "constraints-openai-v2.txt"
	@$(COMPILE) --universal --python-version 3.10 pyproject.toml \
	  --group build --group test --group openai-v2 --extra cli --output-file constraints-openai-v2.txt
	@for group in $(GROUPS_APART); do printf '\n== constraints-%s.txt\n' "$$group"; \
	  $(COMPILE) --universal --python-version 3.11 pyproject.toml --group build --group test --group "$$group" --extra cli \
	  --output-file "constraints-$$group.txt" || exit 1; done
	$(heading) "constraints-mlflow.txt"
	@printf 'mlflow==3.17.2\nopentelemetry-exporter-otlp-proto-http\norjson\nwrapt\n' | $(COMPILE) --universal --python-version 3.10 - --output-file constraints-mlflow.txt
	$(heading) "constraints-phoenix.txt"
	@echo 'arize-phoenix>=20.26' | $(COMPILE) --universal --python-version 3.11 - --output-file constraints-phoenix.txt
	$(heading) "constraints-schemathesis.txt"
	@echo 'schemathesis>=4.32' | $(COMPILE) --universal --python-version 3.11 - --output-file constraints-schemathesis.txt
	$(heading) "constraints-clickhouse.txt"
	@$(COMPILE) --universal --python-version 3.10 --group clickhouse-engine --output-file constraints-clickhouse.txt
	$(heading) "constraints-oldest.txt"
	@$(COMPILE) --python-version 3.10 --resolution lowest-direct pyproject.toml \
	  --group build --group test --extra demo --extra dataframe --extra server --extra clickhouse \
	  --output-file constraints-oldest.txt

clean: ## remove the environments, the caches and what was built
	@rm -rf .venv .venv-openai-v2 $(PYTHONS:%=.venv-%) \
	  $(BACKENDS_NEED:%=.venv-%) node_modules build dist htmlcov .coverage .coverage.* \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests benchmarks stress examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Environments. A stamp is younger than what it was made from, so that a second call installs nothing.

$(UV):
	$(heading) "environment .venv"
	@python=$$($(PYTHON) -c 'import sys; print(sys.executable)' 2>/dev/null || \
	  $(call find_python,$(PYTHON:python%=%)) || echo "$(PYTHON)"); \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python %d.%d is too old; expected 3.10 or newer. Name one with: make PYTHON=python3.12" % sys.version_info[:2])' && \
	  "$$python" -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt uv

.venv/.installed: pyproject.toml constraints.txt | $(UV)
	@echo "installing into .venv (once; a minute or two)"
	@$(UV_INSTALL) --python $(BIN)/python --constraint constraints.txt --build-constraint constraints.txt \
	  --editable '.[$(EXTRAS)]' --group dev
	@touch $@

.venv-openai-v2/.installed: pyproject.toml constraints-openai-v2.txt | $(UV)
	$(heading) "environment .venv-openai-v2: installing (once)"
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv-openai-v2
	@$(UV_INSTALL) --python .venv-openai-v2 --constraint constraints-openai-v2.txt \
	  --build-constraint constraints-openai-v2.txt --editable '.[cli]' --group test --group openai-v2
	@touch $@

$(GROUPS_APART:%=.venv-%/.installed): .venv-%/.installed: pyproject.toml constraints-%.txt | $(UV)
	$(heading) "environment .venv-$*: installing (once)"
	@$(UV) venv --quiet --clear --python '>=3.11,<3.14' ".venv-$*"
	@$(UV_INSTALL) --python ".venv-$*" --constraint "constraints-$*.txt" \
	  --build-constraint "constraints-$*.txt" --editable '.[cli]' --group test --group "$*"
	@touch $@

# Exact versions are in package.json; a lock file would name the host of a registry.
node_modules/.installed: package.json
	@echo "installing into node_modules (once)"
	@npm install --no-package-lock --no-audit --no-fund --silent
	@touch $@

# A server of its own, which the tests start and end, and an application that uses MLflow and otel-metadata; it shares
# no package with .venv.
.venv-mlflow/.installed: constraints-mlflow.txt | $(UV)
	$(heading) "environment .venv-mlflow: installing (once)"
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv-mlflow
	@$(UV_INSTALL) --python .venv-mlflow --constraint constraints-mlflow.txt \
	  mlflow opentelemetry-exporter-otlp-proto-http orjson wrapt
	@touch $@

# Phoenix needs Python 3.11; nothing of ours is in there.
.venv-phoenix/.installed: constraints-phoenix.txt | $(UV)
	$(heading) "environment .venv-phoenix: installing (once; 650 MB)"
	@$(UV) venv --quiet --clear --python '>=3.11,<3.15' .venv-phoenix
	@$(UV_INSTALL) --python .venv-phoenix --constraint constraints-phoenix.txt arize-phoenix
	@touch $@

# A client of our server that knows only its OpenAPI document. It brings a pytest and a Hypothesis of its own.
.venv-schemathesis/.installed: constraints-schemathesis.txt | $(UV)
	$(heading) "environment .venv-schemathesis: installing (once)"
	@$(UV) venv --quiet --clear --python '>=3.11,<3.14' .venv-schemathesis
	@$(UV_INSTALL) --python .venv-schemathesis --constraint constraints-schemathesis.txt schemathesis
	@touch $@

# The engine's process alone: the client and everything of ours are in .venv.
.venv-clickhouse/.installed: pyproject.toml constraints-clickhouse.txt | $(UV)
	$(heading) "environment .venv-clickhouse: installing (once; 930 MB)"
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv-clickhouse
	@$(UV_INSTALL) --python .venv-clickhouse --constraint constraints-clickhouse.txt --group clickhouse-engine
	@touch $@

.venv-oldest/.installed: pyproject.toml constraints-oldest.txt | $(UV)
	$(heading) "environment .venv-oldest: installing (once)"
	@$(UV) venv --quiet --clear --python "$$($(call find_python,$(PYTHON_oldest)))" .venv-oldest
	@$(UV_INSTALL) --python .venv-oldest --constraint constraints-oldest.txt \
	  --build-constraint constraints-oldest.txt --editable '.[$(EXTRAS)]' --group test
	@touch $@

.venv-between/.installed .venv-newest/.installed: .venv-%/.installed: pyproject.toml constraints.txt | $(UV)
	$(heading) "environment .venv-$*: installing (once)"
	@$(UV) venv --quiet --clear --python "$$($(call find_python,$(PYTHON_$*)))" ".venv-$*"
	@$(UV_INSTALL) --python ".venv-$*" --constraint constraints.txt \
	  --build-constraint constraints.txt --editable '.[$(EXTRAS)]' --group test --group instrumentors
	@touch $@
