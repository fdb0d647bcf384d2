# What can be had from PyPI or crates.io is fetched by `make setup`; what cannot is named, with the line that installs it.
BIN := .venv/bin
PROFILE ?= dist
export UV_SYSTEM_CERTS ?= 1
.PHONY: setup demo test check arch fmt wire wheel bench bench-peers soak passport clean

setup: ## everything that the other targets need, in .venv and target
	@tools/setup

demo: setup ## the mesh and the vaccine finder on this machine
	@$(BIN)/tulle demo

test: setup ## every test that this machine can run
	@tools/test

check: setup arch ## format, lint, types, layers
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	cargo fmt --check && cargo clippy --workspace --all-targets --quiet -- -D warnings

arch: ## imports and crates point down
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python tools/crate_graph.py

fmt: ## format everything
	$(BIN)/ruff check --fix-only . && $(BIN)/ruff format . && cargo fmt

wire: ## Python code from the contract in proto/
	$(BIN)/python hatch_build.py

wheel: setup ## dist/: tulle with the examples, tulle-proxy, tulle-engine
	$(BIN)/uv build --wheel --out-dir dist
	$(BIN)/maturin build --manifest-path proxy/bin/Cargo.toml --profile $(PROFILE) --out dist
	$(BIN)/maturin build --manifest-path proxy/engine/Cargo.toml --profile $(PROFILE) --out dist

bench: setup ## side by side with other proxies; BENCH=full for every cell
	cargo build --quiet --locked --release --package tulle-load
	cargo build --quiet --locked --profile dist --package tulle-proxy
	$(BIN)/python -m benches

bench-peers: setup ## the other proxies
	$(BIN)/python -m benches.peers

soak: setup ## ten minutes of trouble, 200 folders of policies, and a minute for each fuzz target
	$(BIN)/python -m pytest e2e -m soak -s
	tools/fuzz 60

passport: setup ## docs/conformance/README.md
	$(BIN)/python tools/passport.py

clean: ## what was built here; the caches of cargo and uv stay
	rm -rf .venv target dist tulle/wire/*_pb2*
