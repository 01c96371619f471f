# make run    run all notebooks and print the results     make test   run the regression suite
# make setup  only make the environment                   make notebooks  execute and store the notebooks
# make slides  make slides of the lessons, data/slides/
PYTHON ?= python3
BIN := .venv/bin

DATASET ?= sample
SEED ?= 0

.PHONY: setup run test notebooks slides

setup: .venv/installed

.venv/installed: requirements.txt tests/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt -c tests/constraints.txt
	touch $@

run: setup
	@mkdir -p data/runs
	$(BIN)/python -m papermill notebooks/00_run_all.ipynb data/runs/00_run_all.ipynb --kernel python3 \
	  --log-output --no-progress-bar -p dataset "$(DATASET)" -p seed $(SEED) \
	  $(if $(PROFILE),-p profile "$(PROFILE)") $(if $(RECIPE),-p recipe "$(RECIPE)")

test: setup
	$(BIN)/python -m pytest --nbval

notebooks: setup
	$(BIN)/python tests/store_notebooks.py

slides: setup
	$(BIN)/python -m pip install --quiet "nbconvert>=7.16,<8"
	$(BIN)/python tests/make_slides.py
