# A fresh clone needs Python 3.10+ and a C++ compiler. `make quickstart` and `make test` do the rest.
# LOCKED=1 installs exactly what requirements.lock names, as CI does. WHEELS=DIR needs no network: it installs from that
# folder what the environment VENV, which has torch, does not have yet.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The suites whose rows the first figure of the README shows.
HEADLINE := focus_table6_keep_ratio focus_table1_main dac_table1 lite_table4 salience_models ms_detr

# pytest keeps the tests as it rewrote them: seconds of each process, whatever the shell says of bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: audit bench bench-gpu bench-scoring check-self clean docs fuzz headline kills limits lint lock mistakes quickstart \
	record-references test test-full test-gpu test-oldest test-slurm

quickstart: $(READY)  ## train four small detectors on two cores, write the report (about six minutes)
	$(BIN)/detrbench run quickstart --jobs 2
	$(BIN)/detrbench report

test: $(READY)  ## the tests that run on every change
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-full: $(READY)  ## everything, the slow checks included
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not gpu"

test-oldest: $(READY)  ## a part of the tests with the oldest dependencies that are supported (TORCH=1: PyTorch too, 3 GB)
	.ci/oldest $(BIN)

fuzz: $(READY)  ## broken input, CASES of each fuzzer (default: 170, as in test-full); SEED draws the same again
	OMP_NUM_THREADS=1 FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(BIN)/pytest -n 2 -m full tests/fuzz

audit: $(READY)  ## known vulnerabilities of the dependencies in requirements.lock; needs a network
	.ci/audit $(BIN)

lock: $(READY)  ## requirements.lock anew: every dependency that CI installs, with its hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --extra dev --extra docs pyproject.toml -o requirements.lock

record-references: $(READY)  ## small references, keys and the folder of a run anew, and what changed of them
	OMP_NUM_THREADS=1 $(BIN)/python tests/reference/record.py
	$(BIN)/pytest -q --record tests/run/test_keys_stay.py tests/cli/test_results_stay.py
	git diff --stat tests/reference

docs: $(READY)  ## the documentation, in build/site (Python 3.11 or newer; no network once its tools are installed)
	$(BIN)/python -c "import zensical, mkdocstrings_handlers.python" || $(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/python docs/site/build.py

headline: $(READY)  ## the first figure of README and site anew: counts what its rows need (two minutes), then draws
	$(BIN)/detrbench run $(HEADLINE) --measure complexity --results build/headline
	$(BIN)/detrbench figure ap_gflops $(HEADLINE) --results build/headline --width page -o docs/headline.svg

test-gpu: $(READY)  ## op, gradients and whole detectors on a CUDA device, which is named first
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python -m pytest -m gpu tests/gpu

test-slurm: $(READY)  ## jobs on a real Slurm that is started on this machine, as root (apt-get install slurm-wlm munge)
	$(BIN)/pytest -m slurm tests/slurm

mistakes: $(READY)  ## which deliberate mistakes the tests notice (about an hour; SUITE=full shows survivors the slow ones)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mistakes/run.py --suite $(or $(SUITE),test)

bench: $(READY)  ## the op against the grid_sample reference, both sides in one run; whole detectors; parts, waits, time and memory of training steps; the loader; whole commands; the CUDA kernels' instructions
	$(BIN)/python benchmarks/op.py --threads 1,2
	$(BIN)/python benchmarks/whole_detectors.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/executions.py --ways float32,fused,channels_last,checkpointed,bf16
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/commands.py
	-$(BIN)/python benchmarks/instructions.py

bench-gpu: $(READY)  ## the same on a CUDA device, which is named first: kernels, not their launches
	$(BIN)/python benchmarks/op.py --device cuda
	$(BIN)/python benchmarks/training_step.py --device cuda --backbone r50 --size 800x1216 --images 2
	$(BIN)/python benchmarks/executions.py --device cuda --backbone r50 --size 800x1216 --images 2

bench-scoring: $(READY)  ## scoring of 5000 images x 100 detections, ours and pycocotools in one run
	$(BIN)/python benchmarks/scoring.py

limits: $(READY)  ## the stated limits, tried: 10,000 cells, a page of 300 rows, 120,000 images (about ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/limits.py

kills: $(READY)  ## 60 runs killed at random moments, run again, and held against one that nobody disturbed
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills/kill_runs.py --kills $(or $(KILLS),60)

check-self: $(READY)  ## detrbench's own budgets: exact GFLOPs of every detector, the op's ratio, two detectors that learn
	$(BIN)/detrbench run complexity self_check --jobs 2 --results build/self
	$(BIN)/detrbench check complexity self_check --results build/self --junit build/self/check.xml
	$(BIN)/python benchmarks/op.py --operations msda --rounds 3 --at-least 10

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef WHEELS
	$(BIN)/python -m pip install --quiet --no-index --find-links $(WHEELS) "setuptools>=77"
	$(BIN)/python -m pip install --quiet --no-index --find-links $(WHEELS) --no-build-isolation --editable . "pytest>=8"
else ifdef LOCKED
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]"
endif
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
