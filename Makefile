# Two commands matter: `make demo` and `make test`. Both need root and say why.

.PHONY: demo test setup macos bench fmt

demo:
	@scripts/setup demo
	@scripts/demo

test:
	@scripts/setup test
	@scripts/test

setup:
	@scripts/setup test

# The product for macOS, signed with a test identity and checked; docs/macos-packaging.md.
macos:
	@scripts/setup macos
	cargo xtask macos

# Figures, never a pass or a fail; docs/performance.md says what they mean.
bench:
	@scripts/setup test
	cargo bench --locked -p toktra-benches --bench hello

fmt:
	cargo fmt --all
