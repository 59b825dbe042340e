# Thin on purpose: what a target does stands in scripts/ or in the command it calls.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run setup test check bench clean

run:            ## set up, then data -> measured artifacts -> registry
	@scripts/run

setup:          ## the virtual environments only
	@scripts/setup

test: setup     ## all tests
	@scripts/test

check: setup    ## lint and types
	@scripts/lint

bench: setup    ## the benchmarks of docs/benchmarks (long)
	python -m benchmarks.chain

clean:          ## what the chain built; not the environments, not the registry
	rm -rf models build dist .slipway
