# make run: set-up, then the first five lessons on this machine's CPU. make test: set-up, then every
# test. make course: all lessons.
SHELL := /bin/sh
PY := .venv/bin/python
# Where pip finds torch. On Linux without a GPU this saves several gigabytes:
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PROFILE ?= cpu
OUT ?= artifacts
# More for the batch, such as ARGS="--fresh" or ARGS="-p seed 7".
ARGS ?=
# Lessons of the course at a time, each with its share of the cores. Two lessons of one thread get
# further than one of two; each takes up to 4 GB, so WORKERS=1 where memory is short.
WORKERS ?= $(if $(filter gpu,$(PROFILE)),1,2)
PYTEST_WORKERS ?= 2
# Which tests; those that are slow are left out of make test.
MARKS ?= -m "not slow and not browser"
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=120 -n $(PYTEST_WORKERS) --dist loadfile
SMOKE := build/smoke
# Lessons that are tested with trainings in bf16, too: one of the upper blocks, one of a low-rank part.
HALF := 03_transfer.ipynb 09_lora.ipynb
SPINE := $(wildcard notebooks/0[1-5]_*.ipynb)

# The bundle for a machine without a network (docs/air-gapped.md). PYTHON, PLATFORM and GLIBC are
# that machine's; the lists are names with spaces between them.
BUNDLE ?= build/bundle
PYTHON ?=
PLATFORM ?= linux-x86_64
GLIBC ?=
PART_MB ?= 55
HAVE ?=
WITHOUT ?=
NEWER ?=
ALSO ?=
BUILD ?=
CATALOG ?=
# Tests of what most depends on other packages' versions; each takes its share of an hour on 2 cores.
COMPAT_TESTS ?= $(addprefix tests/,test_public.py test_compat.py data/test_load.py data/test_files.py \
  models/test_model.py models/test_structure.py training/test_fit.py training/test_search.py \
  methods/test_adapter.py methods/test_lora.py tasks/test_batching.py data/test_templates.py \
  speed/test_optimizations.py speed/test_attention.py batch/test_notebook.py batch/test_run.py)

.PHONY: help setup data run course test test-all test-browser soak bench bench-course bench-serving compare gpu \
  bundle compat lab site clean
help:
	@echo "make run    set-up, then lessons 1 to 5 on the cpu profile; results in $(OUT)/"
	@echo "make course set-up, then every lesson, two at a time; results in $(OUT)/course/"
	@echo "make test   set-up, then every test that is quick"
	@echo "make test-all  the slow ones, too: faults that take long to cause, two nodes of a cluster"
	@echo "make test-browser  three lessons in JupyterLab, and the site, by Chromium; pictures of each"
	@echo "make soak   60 short notebooks while their processes are killed at random, some minutes"
	@echo "make bench  ftkit and its peers on the same work (WORK=NAME for one), about an hour"
	@echo "make bench-course  the lessons on smoke by the batch and by a loop of papermill"
	@echo "make bench-serving  waits for a served model when 1, 8 and 32 ask at once, some minutes"
	@echo "make compare  every method on two tasks, docs/choosing.md; started again, it goes on"
	@echo "make bundle everything for a machine without a network, in parts: docs/air-gapped.md"
	@echo "make gpu    on a machine with a CUDA card: its tests, the benchmark, the lessons; MINUTES=8"
	@echo "make compat the tests under the oldest versions allowed, and under the newest there are"
	@echo "make lab    JupyterLab on copies of the lessons, in $(LAB)/"
	@echo "make site   the lessons as they were run, and all documents, as pages to search: build/site"
	@echo "make clean  remove what the above made (the cache of models and data stays)"

setup: .venv/.ready

# The stamp is written last, so a set-up that was cut short is done again.
.venv/.ready: constraints.txt pyproject.toml setup.py
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	    if $$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "set-up: $$p makes .venv"; $$p -m venv .venv && break; fi; done; fi
	@[ -x $(PY) ] || { echo "No Python 3.11 or newer with venv was found." \
	  "Install one (Debian: apt install python3 python3-venv; macOS: brew install python)."; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check "pip>=23.1"
	@echo "set-up: packages pinned in constraints.txt (some minutes the first time)"
	@index="$(TORCH_INDEX)"; $(PY) -m pip install --disable-pip-version-check \
	  $${index:+--extra-index-url "$$index"} -c constraints.txt -e ".[test,lab,track,serve,export,site]"
	@touch $@

# Prints one line and downloads nothing when the cache has everything.
data: .venv/.ready
	@.venv/bin/ftkit fetch --all

run: data
	@.venv/bin/ftkit batch $(SPINE) --profile $(PROFILE) --out $(OUT) $(ARGS)

course: data
	@.venv/bin/ftkit batch notebooks --profile $(PROFILE) --workers $(WORKERS) --out $(OUT)/course $(ARGS)

# The lessons are tested as copies on the smoke profile; their committed outputs stay as they are.
test: data
	@rm -rf $(SMOKE) && $(PY) tests/smoke_copies.py $(SMOKE)
	@FTKIT_PLAIN=1 FTKIT_RUNS="$$PWD/$(SMOKE)/runs" $(PY) -m pytest tests $(SMOKE) $(MARKS) $(NBVAL)
	@FTKIT_DTYPE=bf16 FTKIT_PLAIN=1 FTKIT_RUNS="$$PWD/$(SMOKE)/runs" \
	  $(PY) -m pytest $(addprefix $(SMOKE)/,$(HALF)) $(NBVAL) --nbval-cell-timeout=600

# The proof on a cluster of two nodes needs Ray, which nothing else does.
test-all: .venv/.ready
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"
	@$(MAKE) test MARKS='-m "not browser"'

soak: .venv/.ready
	@$(PY) tests/soak.py $(ARGS)

# Each peer with its own packages; those of the kit stay as they are.
.venv-%/.ready: benchmarks/requirements-%.txt .venv/.ready
	@echo "set-up: $*"; $(PY) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check "pip>=23.1"
	@index="$(TORCH_INDEX)"; .venv-$*/bin/python -m pip install --quiet \
	  --disable-pip-version-check $${index:+--extra-index-url "$$index"} -r $< $(CONSTRAIN_$*)
	@touch $@

CONSTRAIN_peers := -c constraints.txt

bench: data .venv-peers/.ready .venv-litgpt/.ready
	@$(PY) benchmarks $(WORK) $(ARGS)

bench-course: data
	@$(PY) benchmarks/course.py --write docs/batch.md $(ARGS)

bench-serving: data
	@$(PY) benchmarks/serving.py --write docs/deployment.md $(ARGS)

# Two processes of one thread each. Cells that were measured are kept in build/compare.
compare: data
	@$(PY) benchmarks/compare.py --workers 2 $(ARGS)
	@$(PY) tools/choosing_page.py

quoted = $(foreach word,$(1),'$(word)')
bundle: .venv/.ready
	@$(PY) tools/bundle.py --out $(BUNDLE) --platform $(PLATFORM) --part-mb $(PART_MB) \
	  $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') \
	  $(if $(PYTHON),--python $(PYTHON)) $(if $(GLIBC),--glibc $(GLIBC)) \
	  $(if $(HAVE),--have $(HAVE)) $(if $(WITHOUT),--without $(call quoted,$(WITHOUT))) \
	  $(if $(NEWER),--newer $(call quoted,$(NEWER))) $(if $(ALSO),--also $(call quoted,$(ALSO))) \
	  $(if $(BUILD),--build $(call quoted,$(BUILD))) \
	  $(if $(CATALOG),--catalog $(call quoted,$(CATALOG)))

# Most important first, within MINUTES. With a Python of its own that has torch for CUDA and the
# packages of the kit, as on a cluster's node, nothing is set up: make gpu PY=python3 MINUTES=8
MINUTES ?=
gpu: $(if $(filter file,$(origin PY)),data)
	@$(PY) tools/gpu.py all $(if $(MINUTES),--minutes $(MINUTES)) --out $(OUT)/gpu $(ARGS)

.venv-oldest/.ready: constraints-oldest.txt pyproject.toml .venv/.ready
	@echo "set-up: the oldest versions that pyproject.toml allows"; $(PY) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check "pip>=23.1"
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') -c constraints-oldest.txt -e ".[test]"
	@touch $@

# The newest are looked for each time; both are tried though the first fails.
compat: data .venv-oldest/.ready
	@echo "set-up: the newest versions that pyproject.toml allows"; $(PY) -m venv .venv-newest
	@.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --upgrade --upgrade-strategy eager \
	  $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') "pip>=23.1" -e ".[test]"
	@failed=""; for set in oldest newest; do \
	  echo "compat: $$set"; FTKIT_PLAIN=1 .venv-$$set/bin/python -m pytest $(COMPAT_TESTS) \
	    -n $(PYTEST_WORKERS) --dist loadfile || failed="$$failed $$set"; done; \
	  [ -z "$$failed" ] || { echo "compat: failed under:$$failed"; exit 1; }

# As a learner sees it; pictures of each page are left in artifacts/browser.
test-browser: data
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,browser,site]"
	@$(PY) tests/browser/seat.py
	@$(PY) -m pytest tests/browser -m browser --durations=0

# The lessons are opened as copies, so that git sees nothing of what a learner does.
LAB ?= my-lessons
lab: data
	@.venv/bin/ftkit start $(LAB) --lab

# Nothing is run or fetched for the pages; only the tool that makes them is installed.
site: .venv/.ready
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[site]"
	@$(PY) tools/website.py

clean:
	rm -rf .venv .venv-peers .venv-litgpt .venv-oldest .venv-newest $(OUT) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find ftkit data tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
