# The commands of the course: `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
LESSON ?=
ALL ?=
MODULE ?=
SCALE ?= laptop
SEED ?=
ORIGINALS ?=
JOBS ?=
TORCH_INDEX ?=
LAB_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ONE_LESSON := $(if $(LESSON),--lesson $(LESSON))

.DEFAULT_GOAL := help
.PHONY: help lab progress test lint notebooks results verify claims mutants benchmark incident bench site browser

# Scripts and the course's own package know where they were installed: the stamp says where that was.
MOVED := $(shell test -s "$(INSTALLED)" && test "$$(cat "$(INSTALLED)")" != "$(CURDIR)" && echo moved)
ifdef MOVED
.PHONY: $(INSTALLED)
endif

# A backend named in the environment would keep the figures out of the notebooks.
unexport MPLBACKEND
# JupyterLab keeps files in the home folder; where nothing can be written there, inside VENV.
ifneq ($(shell test -w "$$HOME" && echo writable),writable)
export HOME := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/home
endif
# A user-wide setting for pip would pass the environment by.
export PIP_USER := 0

help: ## List the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
	    while IFS="$$(printf '\t')" read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Each command first installs what it needs into $(VENV), once. Variables:"
	@echo "  PYTHON=python3.12    the Python to install with, 3.11 or newer (now: $(PYTHON))"
	@echo "  LESSON=05            one lesson only: notebooks, results, verify"
	@echo "  ALL=1                verify: also the studies whose code has not changed"
	@echo "  MODULE=attacks.pgd   mutants: of this module only"
	@echo "  SEED=7               incident: decides everything, so keep it from the learners"
	@echo "  ORIGINALS=FOLDER     incident: the four original files, to download nothing"
	@echo "  SCALE=paper          benchmark at the papers' size: CIFAR-10, for a GPU (default: laptop;"
	@echo "                       also controls, paper_knowing, paper_resnet18)"
	@echo "  JOBS=2               trials at the same time: results and benchmark (default: one a"
	@echo "                       core; on a GPU: one)"
	@echo "  LAB_ARGS=--no-browser  passed on to JupyterLab"
	@echo "  TORCH_INDEX=ADDRESS  take torch from there: on Linux without a GPU, the address of the"
	@echo "                       CPU builds that pytorch.org shows under Get Started saves several GB"

lab: $(INSTALLED) ## Open your copies of the lessons, in my_work/, in JupyterLab
	$(BIN)/python -m tools.my_work
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" $(LAB_ARGS) my_work/00_start_here.ipynb

progress: $(INSTALLED) ## Which exercises you have done, and what comes next
	$(BIN)/python -m tools.progress

test: lint ## Run every check: style, unit tests, all lessons from end to end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests notebooks --ignore=tests/performance \
	    --ignore=tests/browser \
	    -n auto --dist loadscope --durations=15 --benchmark-disable \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=300

lint: $(INSTALLED) ## Check the style of code and lessons
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(INSTALLED) ## Run the lessons again and store their outputs, exports and workshop copies
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.run $(ONE_LESSON)

results: $(INSTALLED) ## Run the stored studies again (hours; LESSON=05 for one)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.results $(ONE_LESSON) $(if $(JOBS),--jobs $(JOBS))

verify: $(INSTALLED) ## Does changed code still give the stored rows? Old beside new, in minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.verify $(ONE_LESSON) $(if $(ALL),--all) $(if $(JOBS),--jobs $(JOBS))

claims: $(INSTALLED) ## Recompute data/claims.csv, and say which sentences the stored rows no longer bear
	$(BIN)/python -m tools.claims --write

mutants: $(INSTALLED) ## Do the tests see mistakes in the taught code? (MODULE=attacks.pgd for one)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.mutants $(if $(MODULE),--module $(MODULE))

benchmark: $(INSTALLED) ## Run every attack against every defense (hours; a second call goes on)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.benchmark --scale $(SCALE) $(if $(JOBS),--jobs $(JOBS))

incident: $(INSTALLED) ## A fresh set of cases for lesson 21, with a key for the instructor (SEED=7)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.build_incident $(if $(SEED),--seed $(SEED)) \
	    $(if $(ORIGINALS),--originals "$(ORIGINALS)")

bench: $(INSTALLED) ## Measure speed
	$(BIN)/python -m pytest tests/performance --benchmark-only --benchmark-group-by=group \
	    --benchmark-columns=min,median,max,rounds

site: $(VENV)/.installed-site ## Build the reading edition in site/, without running anything
	$(BIN)/python -m tools.site

browser: site $(VENV)/.installed-browser ## Try the lab and the reading edition in a real browser
	$(BIN)/python -m pytest tests/browser

# Packages for one command only come with its first call. The course's versions stay as they are.
$(VENV)/.installed-%: requirements-%.txt requirements.txt $(INSTALLED)
	$(BIN)/python -m pip install -r $< -c requirements.txt
	@touch $@

# The stamp is written last, so that an interrupted installation is taken up again.
$(INSTALLED): requirements.txt pyproject.toml
	$(if $(MOVED),@echo "The folder of the course was moved: installing again."; rm -rf "$(VENV)")
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	        echo "The course needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`."; \
	        echo "Name a newer one, for example: make lab PYTHON=python3.12"; exit 1; \
	    fi; \
	    $(PYTHON) -m venv $(VENV); \
	fi
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --index-url $(TORCH_INDEX) \
	    $(shell grep -E '^torch(vision)?==' requirements.txt))
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	$(BIN)/jupyter labextension disable "@jupyterlab/apputils-extension:announcements"
	@echo "$(CURDIR)" > $@
