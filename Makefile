# The two that everyone needs: `make demo` and `make test`. Python 3.11 or newer is all they ask for.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# faiss-cpu and faiss-gpu overwrite one another's files: exactly one is installed.
FAISS := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(FAISS)
# What is measured on: a folder with flickr8k/, coco/, imagenet_sample/ and ucm/.
DATA ?= ../shared/data

.PHONY: help demo test lint format random-operations kills flips bench bench-slow clean

help:
	@echo "make demo    search, align and caption the gallery; write demo/demo.html"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff and mypy"
	@echo "make random-operations  2,000 random operations on collections beside an oracle"
	@echo "make kills   SIGKILL at random moments of index, caption --write and remove --purge; takes an hour"
	@echo "make flips   flipped bits in items and index: each answer is right or an error; takes ten minutes"
	@echo "make format  let ruff mend what it can"
	@echo "make bench   measure quality and speed on DATA, on a machine with nothing else to do; writes the pages and cards"
	@echo "make clean   remove the environment and what was built"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmalign needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(FAISS),lite1,heif,phrases,dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/mmalign demo --output demo

# A process a core, each with one thread: files are handed out whole, so that what a file makes is made once.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

random-operations: $(STAMP)
	$(BIN)/python -m tests.random_operations --kind vectors --steps 2000 --seed $(or $(SEED),1)
	$(BIN)/python -m tests.random_operations --kind pictures --steps 2000 --seed $(or $(SEED),1)

kills: $(STAMP)
	$(BIN)/python -m tests.kills all --times 30

flips: $(STAMP)
	$(BIN)/python -m tests.flips all --seed $(or $(SEED),1)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.retrieval $(DATA) --cards
	$(BIN)/python -m benchmarks.encode $(DATA)/flickr8k/manifest.jsonl
	rm -rf build/bench.mm
	$(BIN)/python -m benchmarks.index_folder $(DATA)/flickr8k/images build/bench.mm
	$(BIN)/python -m benchmarks.cold_search build/bench.mm
	$(BIN)/python -m benchmarks.index_costs
	$(BIN)/python -m benchmarks.index_overhead build build/overhead.mm
	$(BIN)/python -m benchmarks.index_overhead time build/overhead.mm
	$(BIN)/python -m benchmarks.exact_search
	$(BIN)/python -m benchmarks.index_contract build/contract --timing --summary
	$(BIN)/python -m benchmarks.index_load build/load
	$(BIN)/python -m benchmarks.query_batches build/queries
	$(BIN)/python -m benchmarks.align_solvers
	$(BIN)/python -m benchmarks.phrases $(DATA)/flickr8k/manifest.jsonl
	$(BIN)/python -m benchmarks.align_stages $(DATA)/flickr8k/manifest.jsonl --split dev
	$(BIN)/python -m benchmarks.align_explain $(DATA)/flickr8k/manifest.jsonl --split dev
	$(BIN)/python -m benchmarks.caption_metrics $(DATA)/flickr8k/manifest.jsonl
	$(BIN)/python -m benchmarks.caption_decoder $(DATA)/flickr8k/manifest.jsonl --split dev
	$(BIN)/python -m benchmarks.caption_grounding $(DATA)/flickr8k/manifest.jsonl --split dev
	$(BIN)/python -m benchmarks.caption_rerank $(DATA)/flickr8k/manifest.jsonl --split dev
	$(BIN)/python -m benchmarks.report

# What takes hours; each step goes on where it was stopped.
bench-slow: $(STAMP)
	$(BIN)/python -m benchmarks.index_memory make build/memory
	$(BIN)/python -m benchmarks.index_memory build build/memory
	$(BIN)/python -m benchmarks.index_memory search build/memory
	$(BIN)/python -m benchmarks.caption_fusion examples/training/lite-captioner-1.toml build/fusion
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
