# `make demo` runs it, `make test` tests it. Both install what is missing.

.PHONY: demo test unit setup check extra bench load load-audit load-egress load-scale load-steady load-shared

demo:
	./scripts/setup demo
	cargo build --profile demo -p cli
	./target/demo/stagedoor demo

test: setup
	./scripts/test

setup:
	./scripts/setup

# The inner loop: format, unit tests, scenario pages, fuzz targets with their seeds. After a change in one crate under two
# minutes on two cores. Lints are in `make check`.
unit:
	cargo fmt --all --check
	cargo test --workspace --exclude loadtests --lib --test '*'

# Format and lints alone.
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features filters/model -- -D warnings

# What takes longer, or needs Java, Go, kubectl or root. Without those it says what it leaves out; with CI set, that is a failure.
extra:
	./scripts/setup extra
	./scripts/extra

bench: setup
	cargo bench -p filters

load: setup
	./loadtests/run

load-audit: setup
	./loadtests/audit

load-egress: setup
	./loadtests/egress
	./loadtests/link

load-scale: setup
	./loadtests/scale
	./loadtests/store

load-steady: setup
	./loadtests/steady

load-shared: setup
	./loadtests/shared
