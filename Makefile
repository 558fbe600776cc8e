# Each target sets up what it needs. PYTHON chooses the interpreter, e.g.
#   make test PYTHON=python3.12 PYTEST_ARGS="-k wavelet"

PYTHON ?= python3
VENV ?= .venv
OPENMMLAB_VENV ?= .venv-openmmlab
TRITON_VENV ?= .venv-triton
PYTEST_ARGS ?=
# Processes that share the tests, a file at a time; 0: this process alone.
TEST_WORKERS ?= 2
# Random calls of the selective scan: by each fuzz test, and by the sanitizers.
FUZZ_EXAMPLES ?= 20000
SANITIZE_CASES ?= 3000

PINS := requirements/constraints.txt
OPENMMLAB_PINS := requirements/constraints-openmmlab.txt
TRITON_PINS := requirements/constraints-triton.txt
TASKS := requirements/tasks.txt

# An environment is made anew when the pins or the interpreter change, and the
# package installed into it again when its packaging or C sources change. The
# names of the stamps carry checksums, so that a mere checkout costs nothing.
ENV_FILES := Makefile $(PINS) $(OPENMMLAB_PINS) $(TRITON_PINS)
INSTALL_FILES := setup.cfg setup.py pyproject.toml \
	$(shell find mmseg_crackssm -name '*.[ch]')
checksum = $(shell { $(PYTHON) -VV 2>&1; cat $(1); } | cksum | cut -d' ' -f1)
ENV_STAMP := .env-$(call checksum,$(ENV_FILES))
SET_UP_STAMP := .set-up-$(call checksum,$(ENV_FILES) $(INSTALL_FILES))
TASKS_STAMP := tasks/.env-$(call checksum,$(ENV_FILES) $(TASKS))
# Where a compilation fails, the installation goes on without the kernel: an
# older one must not be tested in its place.
KERNEL := mmseg_crackssm/ops/native/_native.so

.PHONY: help venv demo test test-openmmlab test-tasks test-triton fuzz \
	sanitize lint format build clean

help:
	@echo 'make demo            train CrackSSM on synthetic cracks, show it'
	@echo 'make test            all tests on the OneDL stack'
	@echo 'make test-openmmlab  all tests on the OpenMMLab stack'
	@echo 'make test-tasks      DAMamba in mmdet and in mmpretrain'
	@echo 'make test-triton     Triton scan, interpreted on the CPU'
	@echo 'make fuzz            selective scan: random calls, long, new ones'
	@echo 'make sanitize        its C kernel under address and UB sanitizers'
	@echo 'make lint            check style (make format mends it)'
	@echo 'make build           sdist and wheel into dist/'
	@echo 'make venv            set up $(VENV) and stop'
	@echo 'make clean           remove environments, caches, build outputs'

# From nothing, so that no package of an older set of pins is tested.
define new-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$(PYTHON) is not Python 3.10 or newer (found:" \
	    "$$($(PYTHON) -V 2>&1)). Name one that is, for example:" \
	    "make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo 'Setting up $(1): some minutes, once'
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install -q --upgrade -c $(PINS) pip
endef

# The package is installed as editable: what is edited is what runs, with no
# set-up in between.
$(VENV)/$(ENV_STAMP):
	$(call new-venv,$(VENV))
	@touch $@

$(VENV)/$(SET_UP_STAMP): | $(VENV)/$(ENV_STAMP)
	@rm -f $(KERNEL)
	$(VENV)/bin/python -m pip install -q -c $(PINS) -e '.[onedl,dev]'
	@rm -f $(VENV)/.set-up-* && touch $@

# mmcv has no wheel for today's torch: it is compiled against the torch of
# this environment, once per machine.
$(OPENMMLAB_VENV)/$(ENV_STAMP):
	$(call new-venv,$(OPENMMLAB_VENV))
	$(OPENMMLAB_VENV)/bin/python -m pip install -q -c $(OPENMMLAB_PINS) \
	  torch numpy setuptools wheel ninja psutil
	wheel=$$(.ci/mmcv-wheel $(OPENMMLAB_VENV)/bin/python) \
	  && $(OPENMMLAB_VENV)/bin/python -m pip install -q \
	    -c $(OPENMMLAB_PINS) "$$wheel"
	@touch $@

$(OPENMMLAB_VENV)/$(SET_UP_STAMP): | $(OPENMMLAB_VENV)/$(ENV_STAMP)
	@rm -f $(KERNEL)
	$(OPENMMLAB_VENV)/bin/python -m pip install -q -c $(OPENMMLAB_PINS) \
	  -e '.[openmmlab,dev]'
	@rm -f $(OPENMMLAB_VENV)/.set-up-* && touch $@

# The CPU builds of torch come without Triton.
$(TRITON_VENV)/$(ENV_STAMP):
	$(call new-venv,$(TRITON_VENV))
	@touch $@

$(TRITON_VENV)/$(SET_UP_STAMP): | $(TRITON_VENV)/$(ENV_STAMP)
	@rm -f $(KERNEL)
	$(TRITON_VENV)/bin/python -m pip install -q -c $(TRITON_PINS) \
	  -e '.[onedl,dev]' triton
	@rm -f $(TRITON_VENV)/.set-up-* && touch $@

# mmdet and mmpretrain stand beside an environment, not in it: mmseg imports
# both where it finds them, and all other tests are to run without. OneDL's
# mmdet needs compiled operators, which pip's onedl-mmcv comes without.
define install-tasks
	@rm -rf $(1)/tasks
	$(1)/bin/python -m pip install -q --no-deps --target $(1)/tasks \
	  -c $(2) $(3) -r $(TASKS)
	@touch $@
endef

$(VENV)/$(TASKS_STAMP): | $(VENV)/$(ENV_STAMP)
	$(call install-tasks,$(VENV),$(PINS),onedl-mmpretrain)

$(OPENMMLAB_VENV)/$(TASKS_STAMP): | $(OPENMMLAB_VENV)/$(ENV_STAMP)
	$(call install-tasks,$(OPENMMLAB_VENV),$(OPENMMLAB_PINS),mmdet mmpretrain)

venv: $(VENV)/$(SET_UP_STAMP)

demo: $(VENV)/$(SET_UP_STAMP)
	$(VENV)/bin/python tools/demo.py

ALL_TESTS = -rs --durations=10 -n $(TEST_WORKERS) --dist loadfile \
  --no-loadscope-reorder

test: $(VENV)/$(SET_UP_STAMP)
	$(VENV)/bin/python -m pytest $(ALL_TESTS) $(PYTEST_ARGS)

test-openmmlab: $(OPENMMLAB_VENV)/$(SET_UP_STAMP)
	$(OPENMMLAB_VENV)/bin/python -m pytest $(ALL_TESTS) $(PYTEST_ARGS)

define run-tasks
	PYTHONPATH=$(abspath $(1)/tasks) $(1)/bin/python -m pytest -rs \
	  --durations=10 $(PYTEST_ARGS) tests/test_projects/test_damamba_tasks.py
endef

test-tasks: $(VENV)/$(SET_UP_STAMP) $(VENV)/$(TASKS_STAMP) \
		$(OPENMMLAB_VENV)/$(SET_UP_STAMP) $(OPENMMLAB_VENV)/$(TASKS_STAMP)
	$(call run-tasks,$(VENV))
	$(call run-tasks,$(OPENMMLAB_VENV))

# Triton's interpreter works on small tensors: one thread.
test-triton: $(TRITON_VENV)/$(SET_UP_STAMP)
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(TRITON_VENV)/bin/python \
	  -m pytest -rs --durations=10 $(PYTEST_ARGS) \
	  -k 'triton or fuzz' tests/test_ops/test_selective_scan

# Without pytest's watchdog: these tests run longer than it waits, and walking
# the frames of a running thread may crash Python.
fuzz: $(VENV)/$(SET_UP_STAMP)
	CRACKSSM_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(VENV)/bin/python -m pytest \
	  -o faulthandler_timeout=0 --durations=2 $(PYTEST_ARGS) \
	  tests/test_ops/test_selective_scan/test_fuzz.py

# Needs a C compiler, and nothing of Python.
sanitize:
	.ci/sanitize $(SANITIZE_CASES)

lint: $(VENV)/$(SET_UP_STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

format: $(VENV)/$(SET_UP_STAMP)
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

# The wheel is built from the unpacked sdist, which proves the sdist whole.
build: $(VENV)/$(SET_UP_STAMP)
	rm -rf build dist
	$(VENV)/bin/python -m build --no-isolation

clean:
	rm -rf $(VENV) $(OPENMMLAB_VENV) $(TRITON_VENV)
	rm -rf build dist *.egg-info $(KERNEL)
	rm -rf .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
