PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo pictures tables test test-slow lint benchmark clean
.DELETE_ON_ERROR:

# Trains with a mark that always tells the class, then with one that tells it half of the time.
demo: $(VENV)/.package
	$(BIN)/python examples/shortcut.py --correlation 1.0
	@echo
	$(BIN)/python examples/shortcut.py --correlation 0.5
	@echo
	$(BIN)/lightning-xai compare runs/shortcut/correlation-1.0 runs/shortcut/correlation-0.5 --out runs/shortcut/compare.html
	@echo
	@echo "Both runs on one page, in a browser: runs/shortcut/compare.html"
	@echo "In TensorBoard: $(BIN)/tensorboard --logdir runs/shortcut --samples_per_plugin images=1000"
	@echo "The film and the concept's curve of each run: runs/shortcut/correlation-*/{filmstrip,effects}.png"

# The README's pictures are the demo's own; beside its two runs, one whose mark tells nothing.
pictures: demo
	mkdir -p assets
	$(BIN)/python examples/shortcut.py --correlation 0.0
	$(BIN)/python examples/side_by_side.py $(foreach c,1.0 0.5 0.0,runs/shortcut/correlation-$c) --output assets/effects.png
	$(BIN)/python examples/vision_transformer.py
	$(BIN)/python examples/text.py --model transformer --epochs 4 --probe 4
	cp runs/vision_transformer/correlation-1.0/relevance.png assets/relevance-vision.png
	cp runs/text/transformer/relevance.png assets/relevance-text.png
	for c in 1.0 0.5; do cp runs/shortcut/correlation-$$c/filmstrip.png assets/filmstrip-correlation-$$c.png; done

# The README's tables of scalars are what the callbacks declare.
tables: $(VENV)/.package
	$(BIN)/python docs/tables.py

# Two processes; a file stays in one of them, which shares its runs.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

benchmark: $(VENV)/.dev
	$(BIN)/python benchmarks/grad_cam.py
	$(BIN)/python benchmarks/masked.py
	$(BIN)/python benchmarks/held.py
	$(BIN)/python benchmarks/history.py
	$(BIN)/python benchmarks/tcav.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/attributions.py

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Stamps: pip runs again only when what is asked of it has changed. `dev` holds everything that the package needs.
$(VENV)/.package: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing lightning_xai into $(VENV) (a few minutes the first time)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing lightning_xai and its development tools into $(VENV) (a few minutes the first time)"
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.package
