# make run        run all notebooks and print the results
# make batch      a small grid of runs, with its report
# make ladder     every recipe from report to best, with three seeds
# make failure    run the failure that 04 shows, and store it
# make leaks      measure leaks and skip connections for 06, on the heart folder DATASET
# make test       run the regression suite
# make lint       check and format all code, notebooks included
# make faults     plant faults and see that the suite notices
# make coverage   what the unit tests reach
# make matrix     every Python, both ends of every range, Colab, adverse circumstances
# make browser    05 in JupyterLab, in a real browser
# make bench      time the course against its peers
# make notebooks  execute and store the notebooks
# make slides     slides of the lessons, in data/slides/
# make setup      only make the environment
PYTHON ?= python3
BIN := .venv/bin

DATASET ?= sample
SEED ?= 0

# The grid of `make batch`, as JSON
GRID ?= {"recipe": ["report", "best"], "fold": [0, 1, 2]}
# The address of a dask scheduler; empty: this machine alone
SCHEDULER ?=
# The environments of `make matrix`, all of them if empty: 3.11-lowest 3.11 3.12 3.13 adverse colab
ONLY ?=

.PHONY: setup run batch ladder failure leaks lint test faults bench matrix browser coverage notebooks slides

setup: .venv/installed

.venv/installed: requirements.txt tests/requirements.txt tools/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  "$(PYTHON) is Python %d.%d: name one of 3.11 to 3.13, as in make setup PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -r tests/requirements.txt -c tools/constraints.txt
	if [ "$$(uname)" = Linux ] && $(BIN)/python -c 'import sys; from course.machine import gpu_found; sys.exit(not gpu_found())'; then \
	  $(BIN)/python -m pip install --quiet "tensorflow[and-cuda]" -c tools/constraints.txt; fi
	touch $@

run: setup
	@mkdir -p data/runs
	$(BIN)/python -m papermill notebooks/00_run_all.ipynb data/runs/00_run_all.ipynb --kernel python3 \
	  --log-output --no-progress-bar -r dataset "$(DATASET)" -p seed $(SEED) \
	  $(if $(PROFILE),-p profile "$(PROFILE)") $(if $(RECIPE),-p recipe "$(RECIPE)")

batch: PROFILE := $(or $(PROFILE),smoke)
batch: setup
	@mkdir -p data/runs
	$(BIN)/python -m papermill notebooks/00_run_all.ipynb data/runs/00_run_all.ipynb --kernel python3 \
	  --log-output --no-progress-bar -y '{dataset: "$(DATASET)", seed: $(SEED), profile: $(PROFILE), grid: $(GRID)}' \
	  $(if $(SCHEDULER),-p scheduler "$(SCHEDULER)")

# Every rung from recipe `report` to `best`, three seeds each: about ten minutes a run on one core
ladder: setup
	$(MAKE) batch PROFILE=ladder GRID="$$($(BIN)/python -c \
	  'import json; from course.recipes import LADDER; print(json.dumps({"seed": [0, 1, 2], "recipe": list(LADDER)}))')"

failure: setup
	$(BIN)/python tools/store_failure.py

leaks: setup
	$(BIN)/python tools/measure_leaks.py "$(DATASET)"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

test: setup
	$(BIN)/python -m pytest --nbval

faults: setup
	$(BIN)/python tools/plant_faults.py

bench: setup
	$(BIN)/python tools/benchmarks/run.py

matrix: setup
	$(BIN)/python tools/matrix.py $(ONLY)

browser: setup data/browser/environment/installed
	data/browser/environment/bin/python tools/browser.py $(BIN)/python

data/browser/environment/installed:
	$(PYTHON) -m venv data/browser/environment
	data/browser/environment/bin/python -m pip install --quiet jupyterlab jupyterlab_widgets playwright
	touch $@

coverage: setup
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest tests
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

notebooks: setup
	$(BIN)/python tools/store_notebooks.py

slides: setup
	$(BIN)/python tools/make_slides.py
