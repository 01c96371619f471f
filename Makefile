# make setup      only make the environment
# make run        run all notebooks and print the results
# make batch      a small grid of runs, with its report
# make ladder     every recipe from report to best, and best without each of its changes, with three seeds
# make segment    a mask and a volume for SCAN=<file or folder>, with the network of RUN=<run folder>
# make test       run the regression suite
# make lint       check and format all code, notebooks included
# tools/README.md lists the others
PYTHON ?= python3
BIN := .venv/bin

# What `make run` and `make batch` take: DATASET (sample, heart, or a path), PROFILE, RECIPE, SEED, GRID (JSON: a list of
# values for each name), SCHEDULER (the address of dask's; without it, only this machine). They travel as environment
# variables; the parameters of notebook 00 are the defaults.
export DATASET PROFILE RECIPE SEED GRID SCHEDULER

# What `make segment` takes: SCAN (a NIfTI file, a folder of slices (DICOM or pictures), an archive, or a folder of
# these), RUN (the folder of a finished run), OUT (a folder for the answers), and for pictures SPACING="1.25 1.25 1.37",
# the mm between rows, columns and slices.

.PHONY: setup run batch segment ladder failure leaks lint test mutants faults bench matrix browser coverage notebooks slides site heart-pictures

setup: .venv/installed

.venv/installed: requirements.txt tests/requirements.txt tools/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  "$(PYTHON) is Python %d.%d, but the course needs 3.11 to 3.13: name one, as in make setup PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -r tests/requirements.txt -c tools/constraints.txt
	if [ "$$(uname)" = Linux ] && $(BIN)/python -c 'import sys; from course.machine import gpu_found; sys.exit(not gpu_found())'; then \
	  $(BIN)/python -m pip install --quiet "tensorflow[and-cuda]" -c tools/constraints.txt; fi
	touch $@

run batch: setup
	@exec $(BIN)/python -m course.terminal

TRIAL := {"recipe": ["report", "best"], "fold": [0, 1, 2]}
batch: PROFILE := $(or $(PROFILE),smoke)
batch: GRID := $(or $(GRID),$(TRIAL))

# Every rung from recipe `report` to `best`, and `best` without each of its changes, three seeds each
ladder: setup
	$(MAKE) batch PROFILE=ladder GRID="$$($(BIN)/python -c 'import json; from course.recipes import RECIPES; \
	  print(json.dumps({"recipe": list(RECIPES), "seed": [0, 1, 2], "spacing": [[*map(float, "$(SPACING)".split())] or None]}))')"

failure: setup
	$(BIN)/python -m tools.store_failure

leaks: setup
	$(BIN)/python -m tools.measure_leaks "$(DATASET)"

segment: setup
	@$(BIN)/python -m tools.segment "$(SCAN)" "$(RUN)" $(if $(OUT),--out "$(OUT)") $(if $(SPACING),--spacing $(SPACING))

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

test: setup
	$(BIN)/python -m pytest --nbval -n logical --maxprocesses 4

faults: setup
	$(BIN)/python -m tools.plant_faults

mutants: setup
	$(BIN)/python -m pip install --quiet -r tools/requirements.txt -c tools/constraints.txt
	$(BIN)/python -m tools.mutants --count $(or $(COUNT),300) $(MODULES)

bench: setup
	$(BIN)/python -m tools.benchmarks.run

matrix: setup
	$(BIN)/python -m tools.matrix $(ONLY)

browser: setup data/browser/environment/installed
	data/browser/environment/bin/python -m tools.browser $(BIN)/python

data/browser/environment/installed:
	$(PYTHON) -m venv data/browser/environment
	data/browser/environment/bin/python -m pip install --quiet jupyterlab jupyterlab_widgets playwright
	touch $@

coverage: setup
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n logical --maxprocesses 4 tests
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

notebooks: setup
	$(BIN)/python -m tools.store_notebooks

slides: setup
	$(BIN)/python -m tools.make_slides

site: setup
	$(BIN)/python -m tools.make_site

heart-pictures: setup
	$(BIN)/python -m tools.heart_pictures $(if $(RUN),"$(RUN)")
