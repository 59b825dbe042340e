# Thin on purpose: what a target does stands in scripts/ or in the command it calls.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run setup test test-systems check build difference push release bench clean

run:            ## set up, then data -> measured artifacts -> registry
	@scripts/run

setup:          ## the virtual environments only, with the toolchains of the targets that are on
	@scripts/setup

test: setup     ## all tests but those of test-systems
	@scripts/test

test-systems:   ## every toolchain, the real services, Chromium
	@scripts/test-systems

check: setup    ## lint and types
	@scripts/lint

build:          ## CI: what the change concerns; what did not change comes from DVC's remote
	slipway check
	dvc repro --pull --allow-missing --keep-going
	dvc pull --allow-missing profile select certify register
	slipway report

difference:     ## CI: what ships now against BASE, a git revision; fails when a target got worse
	slipway diff --against "$(BASE)" --out models/report/difference.md

push:           ## CI: outs and run cache to DVC's remote
	dvc push --run-cache

release:        ## CI: publish what was built for TAG, NAME@vX.Y.Z; never builds
	dvc pull register
	slipway publish --tag "$(TAG)"

bench: setup    ## the benchmarks of docs/benchmarks (long)
	python -m benchmarks.chain
	python -m benchmarks.profiling.keyword_spotting
	python -m benchmarks.profiling.verdicts
	python -m benchmarks.profiling.against_loadgen

clean:          ## what the chain built; not the environments, not the registry
	rm -rf models build dist .slipway
