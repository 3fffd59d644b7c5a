# What people and machines do with this repository. Each target is a script of the same name; the scripts say more.
# There is one profile, release, so that nothing is compiled twice.

.PHONY: help demo test test-long bench fmt lint deps

help:
	@echo "make demo       build everything, start a server, and watch a run    LISTEN=127.0.0.1:8288 ONCE=1 KILL=1"
	@echo "make test       every check, each once, with its time"
	@echo "make test-long  the same with many more kills, and with and without parked instances"
	@echo "make bench      measure    DATABASE_URL=postgres://… NODES=2"
	@echo "make fmt        format"
	@echo "make lint       formatting and clippy only"
	@echo "make deps       install what is needed from Debian's packages"

demo:
	@scripts/demo

test:
	@scripts/test

test-long:
	@scripts/test long

bench:
	@scripts/bench

fmt:
	@cargo fmt --all
	@cargo fmt --all --manifest-path examples/Cargo.toml
	@cargo fmt --all --manifest-path testing/guests/Cargo.toml

lint:
	@scripts/test lint

deps:
	@scripts/deps

# These may stand after the target as well as in the environment.
export LISTEN ONCE KILL DATABASE_URL NODES
