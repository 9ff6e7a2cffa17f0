# Everyday commands; the work is done by scripts/setup and scripts/check.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The text reaches the program through the environment, and `value` keeps make from expanding it:
# quotes, dollars and back-ticks arrive as they were typed.
PROMPT ?= What is a key-value cache in a language model? Answer in three sentences.
override PROMPT := $(value PROMPT)
export PROMPT

.PHONY: help setup build run test check format clean

help:  ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup:  ## install what is missing (packages, Rust, the default model)
	@scripts/setup test

build:  ## set up and build build/kvasir
	@scripts/check build

run: build  ## build and answer a question; PROMPT="..." changes it
	@build/kvasir run --chat -n 256 -p "$$PROMPT"

test:  ## set up, build, unit tests, goldens, equality laws, short soaks
	@scripts/check test

check:  ## what CI runs: test, then format, structure, sanitizers, clang, fuzzers, long soaks
	@scripts/check all

format:  ## rewrite the C++ sources in the house format
	@scripts/check reformat

clean:  ## remove every build folder
	rm -rf build build-debug build-clang build-asan build-tsan build-rust
