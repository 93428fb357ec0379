# make run: environment + quick start.  make test: environment + all tests.  Needs Python 3.10+.
# make outputs: executes the notebooks in place.  make docs: the site, in build/site.
# make badges REPO=owner/name: writes the repository's address everywhere.
PYTHON ?= python3
BIN := .venv/bin
# pip compiles nothing, which is half of its time: what notebooks import is compiled by importing it once.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test install lint outputs badges docs

install: .venv/installed

.venv/installed: requirements.txt requirements-runtime.txt requirements-torch.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --no-compile -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e . || $(BIN)/python -m pip install -q --no-deps -e .
	$(BIN)/python -c "import ipykernel.kernelapp, keybert, nbclient, plotly.graph_objects, saelib.browser.app"
	touch .venv/installed

run: install
	mkdir -p data/executed
	cd notebooks && ../$(BIN)/jupyter execute --output=../data/executed/00_quickstart.ipynb 00_quickstart.ipynb
	@echo "Executed notebook: data/executed/00_quickstart.ipynb    SAE and names: data/quickstart/"
	@$(BIN)/python -c "import pandas as pd; print('Ten features:'); print(pd.read_parquet('data/quickstart/names.parquet').shown_as.sample(10, random_state=0).to_string())"
	@echo "Open it all with:  $(BIN)/jupyter lab notebooks"

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check saelib tests

test: install
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder --nbmake --nbmake-timeout=1800 tests notebooks

outputs: install
	$(BIN)/python notebooks/outputs.py $(NOTEBOOKS)

badges: install
	$(BIN)/python notebooks/badges.py $(REPO)

docs: install build/browser/page/feature_browser.html
	$(BIN)/python -m pip install -q --no-compile -r docs/requirements.txt -c constraints.txt
	$(BIN)/python -m sphinx -q -W --keep-going docs build/site
	$(BIN)/python docs/check.py build/site
	@echo "Open build/site/index.html"

build/browser/page/feature_browser.html: docs/browser_page.py data/sae/sae.safetensors data/sae/names.parquet | install
	$(BIN)/python docs/browser_page.py
