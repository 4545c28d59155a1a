# make run    the demo, end to end: set-up, data, training pipeline, table of scores
# make test   the test suite
# `make help` lists all targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CONFIG ?= configs/demo.yaml
PORT ?= 5000
export CONFIG
unexport PYTHONDONTWRITEBYTECODE

# The first Python with a supported version.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)

# Holds the path of the checkout. After a move or a copy, the environment would import the code at the old place.
ENVIRONMENT := .venv/.complete
ifneq ($(shell cat $(ENVIRONMENT) 2>/dev/null),$(CURDIR))
.PHONY: $(ENVIRONMENT)
endif
# Paths with blanks cannot be targets, so the shell looks for this one. It holds the path of LANDSLIDE_HOME.
STACK := $$LANDSLIDE_HOME/zenml/.stack-registered
ACTIVATE := source ./activate.sh
# A configuration with data.fetch lets the pipeline bring the data.
PREPARE := { grep -qsE '^[^\#]*\bfetch: *[Tt]rue\b' "$$CONFIG" || landslide data prepare; }

.PHONY: help setup stack data run map ablation night report test test-quick soak lint types docs ui clean clean-all

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: stack ## create .venv with everything that requirements.lock pins, register the ZenML stack

$(ENVIRONMENT): requirements.lock pyproject.toml
	@rm -f $@
	@$(ACTIVATE) || test $$? = 3  # a moved LANDSLIDE_HOME, which `landslide home relocate` repairs later
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; install one, or say: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON) (some minutes the first time)"
	@grep -qs '^relocatable' .venv/pyvenv.cfg || rm -rf .venv
	@test -x .venv/bin/python || { $(PYTHON) -m venv .venv && echo 'relocatable = true' >> .venv/pyvenv.cfg; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
	@pwd -P > $@

stack: $(ENVIRONMENT)
	@$(ACTIVATE) && { test -s "$(STACK)" || { python -m stacks.local && printf '%s\n' "$$LANDSLIDE_HOME" > "$(STACK)"; }; }

data: $(ENVIRONMENT) ## bring the data that data.dvc pins, generating it if it is the demo set
	@$(ACTIVATE) && landslide data prepare

run: stack ## run the training pipeline; CONFIG=configs/demo.yaml
	@$(ACTIVATE) && $(PREPARE)
	@echo "Loading the libraries; this takes some seconds."
	@$(ACTIVATE) && exec zenml pipeline run pipelines.training.training_pipeline -c "$$CONFIG"
	@$(ACTIVATE) && landslide report
	@test "$$CONFIG" != configs/demo.yaml || $(MAKE) --no-print-directory map

SCENE := $$LANDSLIDE_HOME/demo-scene
map: stack ## map the landslides of a generated scene with the model in service
	@$(ACTIVATE) && { test -d "$(SCENE)" || landslide data scene "$(SCENE)" --seed 7 --clouds; }
	@$(ACTIVATE) && exec landslide map "$(SCENE)"/*.SAFE --dem "$(SCENE)/dem.tif" --snow -o maps --overwrite

ablation: CONFIG = configs/ablation_demo.yaml
ablation: stack ## train the rows of a table and compare them; CONFIG=configs/table3.yaml
	@$(ACTIVATE) && $(PREPARE)
	@echo "Loading the libraries; this takes some seconds."
	@$(ACTIVATE) && exec zenml pipeline run pipelines.ablation.ablation_pipeline -c "$$CONFIG"

night: CONFIG = configs/retrain_demo.yaml
night: stack ## run a nightly retraining on the demo; CONFIG=configs/retrain_demo.yaml
	@$(ACTIVATE) && $(PREPARE)
	@echo "Loading the libraries; this takes some seconds."
	@$(ACTIVATE) && exec zenml pipeline run pipelines.retraining.retraining_pipeline -c "$$CONFIG"

report: $(ENVIRONMENT) ## show the scores of the last run again
	@$(ACTIVATE) && landslide report

# A worker that dies fails the run and names its test; with a new one in its place, the run would never end.
PYTEST := python -m pytest -q --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# One worker more than cores, because tests wait for servers and processes; 4 at most, each takes up to 2 GB.
test: $(ENVIRONMENT) ## run the test suite
	@$(ACTIVATE) && $(PYTEST) -n $$(( $$(nproc) < 4 ? $$(nproc) + 1 : 4 )) -m "not soak"

test-quick: $(ENVIRONMENT) ## run the tests that need no training, pipeline, database, server or process, in under a minute
	@$(ACTIVATE) && $(PYTEST) -n auto --maxprocesses 4 -m "not soak and not slow"

soak: $(ENVIRONMENT) ## run the longer trials
	@$(ACTIVATE) && python -m pytest -q -m soak

lint: $(ENVIRONMENT) ## check style
	@$(ACTIVATE) && ruff check . && ruff format --check .

types: $(ENVIRONMENT) ## check types
	@$(ACTIVATE) && mypy

docs: $(ENVIRONMENT) ## write the pages of docs/reference from the code
	@$(ACTIVATE) && PYTHONPATH=. python docs/generate.py

ui: $(ENVIRONMENT) ## open the MLflow UI on http://127.0.0.1:5000 (PORT=...)
	@echo "runs: http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning"
	@$(ACTIVATE) && mlflow ui --backend-store-uri "$$MLFLOW_TRACKING_URI" --host 127.0.0.1 --port $(PORT)

clean: ## delete .venv, caches and pulled data; keep runs, models and unfinished trainings
	@stacks/clean.sh

clean-all: ## delete these too, after asking; data and foreign files stay
	@stacks/clean.sh --all
