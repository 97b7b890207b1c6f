# Two commands matter: `make demo` and `make test`. Both need root and say why.

.PHONY: demo test setup bench fmt

demo:
	@scripts/setup demo
	@scripts/demo

test:
	@scripts/setup test
	@scripts/test

setup:
	@scripts/setup test

# Figures, never a pass or a fail; docs/performance.md says what they mean.
bench:
	@scripts/setup test
	cargo bench --locked -p toktra-benches --bench hello

fmt:
	cargo fmt --all
