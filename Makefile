# The two commands of the README, and their opposites. Each may be repeated.

SHELL := /bin/bash
CARGO ?= cargo
.DELETE_ON_ERROR:
.PHONY: up down test packages lint unit e2e programs faults machines bench

up: packages
	@echo "building (a few minutes the first time)"
	$(CARGO) build --release --bins
	target/release/coxswain up --images deploy/images
	@deploy/link-kubectl.sh

down:
	@test -x target/release/coxswain || $(CARGO) build --release --bins
	target/release/coxswain down
	@deploy/link-kubectl.sh --remove

# Everything the tests need, then all tests; the end-to-end tests come last.
test: packages lint unit e2e

packages:
	@deploy/install-packages.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Always the whole workspace, and binaries beside their tests: built otherwise, crates have other features, and all
# would be compiled once more.
unit:
	$(CARGO) test --workspace

E2E := --test command_line --test simulation --test scheduling --test end_to_end

e2e:
	$(CARGO) build --workspace --bins $(E2E)
	$(CARGO) test --workspace $(E2E)

# MariaDB, Redis, RabbitMQ, nginx and a web service on two nodes.
programs: packages
	$(CARGO) build --workspace --bins --test programs
	$(CARGO) test --workspace --test programs

# Full and slow disks, and clocks that jump.
faults: packages
	$(CARGO) build --workspace --bins --test faults
	$(CARGO) test --workspace --test faults

# Three virtual machines under qemu, and what happens to machines.
machines:
	@deploy/install-packages.sh qemu-system-x86 mmdebstrap e2fsprogs openssh-client
	$(CARGO) build --release --bins
	target/release/machines

bench: packages
	$(CARGO) build --release --bins
	target/release/bench
