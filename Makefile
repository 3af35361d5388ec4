# make test, make demo, make bench, ... each does all that it needs, from a bare clone.
#   TORCH=2.11.0         another version of PyTorch, in a virtual environment of its own
#   PYTHON=python3.12    another Python (3.11, 3.12 or 3.13)
#   VENV=path            another place for the virtual environment
#   BENCH=--quick        options of the benchmarks, see python benchmarks/all_reduce.py --help
#   GPU_CHECK=--cpp      options of make gpu-check, see python benchmarks/gpu_check.py --help
DEFAULT_TORCH := 2.15.0
TORCH  ?= $(DEFAULT_TORCH)
PYTHON ?= python3
VENV   ?= .venv$(if $(filter $(DEFAULT_TORCH),$(TORCH)),,-$(TORCH))

BIN     := $(abspath $(VENV))/bin
PYTAG   := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
BUILD   := build/torch-$(TORCH)-py$(PYTAG)
DEPS    := $(VENV)/.bluefog-deps-$(TORCH)
BUILT   := $(VENV)/.bluefog-built-$(TORCH)
RIVALS  := $(VENV)/.bluefog-rivals-$(TORCH)
DOCS    := $(VENV)/.bluefog-docs-$(TORCH)
export PATH := $(PATH):$(BIN)
BENCHMARKS := neighbor_allreduce neighbor_allgather all_reduce win_put ddp_step training overlap
SANITIZERS := address undefined thread
# Folders are in the list because removing a file changes only its folder.
SOURCES := setup.py pyproject.toml CMakeLists.txt \
           $(shell find csrc cmake bluefog_pg -name __pycache__ -prune -o \
                   ! -name '*.so' ! -name _build_info.py -print)
CPP     := $(shell find csrc tests/cpp tests/emulator -name '*.h' -o -name '*.cc' -o -name '*.cu')

.PHONY: help demo test test-cpp test-python test-conformance test-sanitize test-docs bench gpu-check \
        build emulator docs docs-links tutorials lint format clean preflight preflight-test
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1: /p' Makefile

demo: build ## train a digits classifier on 4 processes, beside stock DDP
	@OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node 4 examples/digits.py

test: preflight-test test-cpp test-python ## all tests, except the long conformance run
	@$(call conformance,--quick)

test-cpp: preflight-test build ## the GoogleTest tests
	@echo "Building and running the C++ tests"
	@$(call cpp_tests,$(BUILD),,)

test-python: build emulator ## the pytest tests, on the installed package
	@cd tests && BLUEFOG_EMULATOR=$(abspath $(BUILD))/emulator $(BIN)/python -m pytest -q

emulator: preflight-test build ## the emulated GPU that tests/emulated.py runs programs with
	@mkdir -p $(BUILD) && { $(call cmake_build,$(BUILD),,bluefog_emulator); } > $(BUILD)/log 2>&1 \
	  || { cat $(BUILD)/log; exit 1; }

test-conformance: build emulator ## PyTorch's own distributed suite, on bluefog, gloo and nccl
	@$(call conformance,)

# conformance(options): beside gloo, and beside nccl where the emulated GPUs have been built
define conformance
$(BIN)/python tests/upstream/compare.py $(1) && if test -e $(BUILD)/emulator/libcuda.so.1; then \
    BLUEFOG_EMULATOR=$(abspath $(BUILD))/emulator $(BIN)/python tests/upstream/compare.py --gpus $(1); \
  else echo "Not beside nccl: bluefog_pg is built without CUDA"; fi
endef

test-docs: build $(DOCS) ## execute the tutorials, which assert what they claim
	@$(BIN)/python scripts/notebooks --check
	@$(BIN)/python scripts/notebooks --out build/tutorials

test-sanitize: preflight-test $(SANITIZERS:%=sanitize-%) ## the C++ tests under the sanitizers

# The thread sanitizer wants a memory layout without much randomness: setarch -R, where allowed.
sanitize-%: $(DEPS)
	@echo "Building and running the C++ tests with -fsanitize=$*"
	@$(call cpp_tests,$(BUILD)-$*,$*,$$(setarch -R true 2>/dev/null && echo setarch -R))

# cpp_tests(build tree, sanitizer, launcher): the summary line, or all output if something fails
define cpp_tests
mkdir -p $(1) && { $(call cmake_build,$(1),$(2),bluefog_tests) && \
  $(3) ctest --test-dir $(1) --output-on-failure --no-tests=error -j 2; } > $(1)/log 2>&1 \
  || { cat $(1)/log; exit 1; }; grep 'tests passed' $(1)/log
endef

# cmake_build(build tree, sanitizer, target)
define cmake_build
cmake -S . -B $(1) -G Ninja -DPython_EXECUTABLE=$(BIN)/python -DBLUEFOG_TESTS=ON \
  -DSANITIZE=$(2) && cmake --build $(1) --target $(3)
endef

# A benchmark that fails does not keep the others from running.
bench: build $(RIVALS) ## operations and training steps beside Gloo, MPI and others: times, ratios
	@status=0; for name in $(BENCHMARKS); do \
	    echo; echo "# benchmarks/$$name.py"; \
	    $(BIN)/python benchmarks/$$name.py $(BENCH) || status=1; \
	  done; exit $$status

# With the torch that PYTHON has: a machine with a GPU may have no network.
gpu-check: ## what one GPU shows: right results, streams, bandwidth; a report in build/gpu-check
	@PYTHON=$(PYTHON) scripts/gpu-check $(GPU_CHECK)

docs: build $(DOCS) ## the site of the documentation, in build/docs/html
	@$(BIN)/sphinx-build -q -W --keep-going -d build/docs/doctrees docs build/docs/html
	@echo "The site is build/docs/html/index.html"

docs-links: build $(DOCS) ## whether the links that lead out of the documentation work; needs network
	@$(BIN)/sphinx-build -q -b linkcheck -d build/docs/doctrees docs build/docs/links

tutorials: build $(DOCS) ## execute the tutorials, and write their notebooks anew
	@$(BIN)/python scripts/notebooks

build: $(BUILT) ## build the package and install it into the virtual environment

$(DEPS): pyproject.toml scripts/requirements | preflight
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch $(TORCH) and the other requirements into $(VENV)" \
	      "(the first time, a download of 2 to 3 GB)"
	@$(BIN)/python scripts/requirements demo dev > $(VENV)/requirements.txt
	@$(BIN)/python -m pip install --quiet torch==$(TORCH) -r $(VENV)/requirements.txt
	@rm -f $(VENV)/.bluefog-*; touch $@

$(RIVALS): $(DEPS)
	@echo "Installing what bluefog is compared with into $(VENV)"
	@$(BIN)/python scripts/requirements bench > $(VENV)/requirements-bench.txt
	@$(BIN)/python -m pip install --quiet -r $(VENV)/requirements-bench.txt
	@touch $@

$(DOCS): $(DEPS)
	@echo "Installing what the docs and tutorials are made with into $(VENV)"
	@$(BIN)/python scripts/requirements docs > $(VENV)/requirements-docs.txt
	@$(BIN)/python -m pip install --quiet -r $(VENV)/requirements-docs.txt
	@touch $@

$(BUILT): $(DEPS) $(SOURCES) | preflight
	@echo "Building bluefog_pg for torch $(TORCH) (the first time, a few minutes)"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps .
	@touch $@

lint: $(DEPS) ## check the style of all code
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(DEPS) ## rewrite all code in that style
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(CPP)

clean: ## remove the build trees and caches; the virtual environments stay
	@rm -rf build dist docs/_files docs/_tutorials .pytest_cache .ruff_cache .venv*/.bluefog-built-* $(BUILT)
	@find bluefog_pg benchmarks tests examples -name __pycache__ -prune -exec rm -rf {} +

preflight:
	@scripts/preflight build $(PYTHON) $(VENV)

preflight-test:
	@scripts/preflight test $(PYTHON) $(VENV)
