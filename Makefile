# make up     start everything on this machine (Ctrl-C stops it)
# make test   all that CI runs, on servers of its own, in parallel to a running `make up`
# make check  the part of it that needs no server: ruff, basedpyright, import-linter
# make bench  measure what the bench folder claims
# make lock   renew the hashed requirements    make wheel  build dist/*.whl    make clean  remove what was built

.PHONY: up test check bench lock wheel clean
.DEFAULT_GOAL := help

up test check bench lock wheel clean:
	@bash .ci/steps $@

.PHONY: help
help:
	@sed -n 's/^# //p' Makefile
