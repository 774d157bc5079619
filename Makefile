# make demo    from nothing to generated networks, in two stages
# make test    every test of the library, its C and C++ interfaces and the trainer
# make hosts   the tests of the Go, C# and Swift bindings and of the examples; skips what is missing
# make test-aarch64  the library's tests for 64-bit Arm, cross-built and run under qemu
# make install, uninstall, dist: see install.mk; make examples, swarm: see examples/examples.mk
# make header  regenerate include/dwf.h after a change in src/capi
# make bench   the runtime's benchmarks; make bench-pytorch compares with PyTorch
# make goals   the README's table of goals: zoos, flows and reports, for hours
# make fuzz    every fuzzer for 10 minutes; make load: 32 threads for 10 minutes
# make sanitize, valgrind  the C programs of the tests under sanitizers, under valgrind
# make tsan, miri  Rust's tests under its nightly tools
# make reproducible  two builds of libdwf in different folders are the same bytes
# make gpu-check  all that needs an NVIDIA GPU; see tests/gpu/run
# make lint    formatting and clippy, as CI runs them

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.PHONY: demo demo-spawn demo-train test test-aarch64 hosts check-python header bench bench-pytorch goals \
	gpu-check gpu-check-files fuzz load sanitize valgrind tsan miri reproducible lint clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILD := build
DEMO := $(BUILD)/demo
IRIS := examples/iris
CARGO := cargo
# One at a time: together, the tests' dependencies would change the features of the trainer's, and
# build them a second time.
PACKAGES := libdwf dwf-trainer
CFLAGS := -std=c99 -O2 -Wall -Wextra
# With the components miri and rust-src.
NIGHTLY := +nightly
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# Programs started from here find the pinned ONNX Runtime; yours can say DWF_ONNXRUNTIME too.
export DWF_ONNXRUNTIME ?= $(CURDIR)/.ort/libonnxruntime.so

include install.mk
include examples/examples.mk

demo: demo-spawn demo-train

demo-spawn: $(BUILD)/spawn
	@echo
	@echo "1. A C program generates 100 networks from the committed Iris artifact:"
	@$(BUILD)/spawn $(IRIS)/iris.onnx $(IRIS)/held-out.csv $(IRIS)/zoo.f32

demo-train: demo-spawn
	@echo
	@echo "2. Now the whole way, from training a zoo: builds the trainer (the first time takes some"
	@echo "   5 minutes on 2 cores), then trains 100 networks and a flow over their weights (a minute)."
	@echo
	@$(CARGO) build --release -p dwf-trainer
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@$(TARGET)/release/dwf zoo iris -o $(DEMO)/zoo
	@$(TARGET)/release/dwf train $(DEMO)/zoo -o $(DEMO)/iris.onnx --aligned-zoo $(DEMO)/zoo.f32
	@echo
	@echo "   The same C program on the artifact just made:"
	@$(BUILD)/spawn $(DEMO)/iris.onnx $(DEMO)/zoo/held-out.csv $(DEMO)/zoo.f32
	@echo
	@echo "Next: DWF_ONNXRUNTIME=$(DWF_ONNXRUNTIME) \\"
	@echo "      $(TARGET)/release/dwf generate $(DEMO)/iris.onnx -n 1000 -o networks --seed 7"

$(BUILD)/spawn: examples/spawn.c include/dwf.h .ort/libonnxruntime.so FORCE
	@mkdir -p $(BUILD)
	@$(CARGO) build --release -p libdwf
	@$(CC) $(CFLAGS) -Iinclude examples/spawn.c -o $@ \
		-L$(TARGET)/release -Wl,-rpath,$(abspath $(TARGET)/release) -ldwf -lm

.ort/libonnxruntime.so:
	@.ci/onnxruntime

# The oldest and the newest ONNX Runtime that tests run against; pinned for x86-64 only.
OTHERS := .ort/1.20.1/libonnxruntime.so .ort/1.32.0/libonnxruntime.so
$(OTHERS): .ort/%/libonnxruntime.so:
	@if [ "$$(uname -m)" = x86_64 ]; then .ci/onnxruntime $* .ort/$*; fi

test: .ort/libonnxruntime.so $(OTHERS)
	@rm -rf $(BUILD)/conformance && mkdir -p $(BUILD)
	@for package in $(PACKAGES); do $(CARGO) test --release -p $$package 2>&1; done \
		| tee $(BUILD)/test.log
	@awk '/^test result:/ { passed += $$4; failed += $$6; skipped += $$8 } \
		END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' \
		$(BUILD)/test.log | tee $(BUILD)/test.summary

test-aarch64:
	@tests/aarch64/run

# A host whose toolchain is missing exits with 77 and says so; REQUIRE_HOSTS=1 takes no excuse.
HOSTS := bindings/go/test bindings/csharp/test bindings/swift/test examples/test
REQUIRE_HOSTS ?= 0

hosts: .ort/libonnxruntime.so
	@for host in $(HOSTS); do \
		echo "== $$host"; status=0; $$host || status=$$?; \
		if [ $$status = 77 ] && [ $(REQUIRE_HOSTS) = 0 ]; then continue; fi; \
		if [ $$status != 0 ]; then echo "$$host failed with $$status"; exit 1; fi; \
	done
	@if [ $(REQUIRE_HOSTS) = 0 ]; then tests/conformance/compare; \
		else tests/conformance/compare --require rust,c,cpp,go,csharp,swift; fi

# The artifact and its exported sampler, opened with the Python tools that other people have.
check-python: .ort/libonnxruntime.so
	@$(CARGO) build --release -p dwf-trainer
	@.ci/check-artifact $(IRIS)/iris.onnx
	@.ci/check-sampler $(TARGET)/release/dwf $(IRIS)/iris.onnx
	@.ci/check-sampler $(TARGET)/release/dwf tests/conformance/conditional.onnx virginica

header:
	@DWF_UPDATE_HEADER=1 $(CARGO) test --quiet --release -p libdwf --test header

bench: .ort/libonnxruntime.so
	@$(CARGO) bench -p libdwf

# PyTorch is several gigabytes, and installed only for this, in build/pytorch. The artifact is trained
# as one is for speed: the straighter paths of optimal transport need half the evaluations.
bench-pytorch: .ort/libonnxruntime.so
	@$(CARGO) build --release -p libdwf
	@$(CARGO) build --release -p dwf-trainer
	@test -d $(BUILD)/pytorch || python3 -m pip install --quiet --target $(BUILD)/pytorch \
		torch numpy safetensors onnxruntime
	@rm -rf $(BUILD)/bench && mkdir -p $(BUILD)/bench
	@$(TARGET)/release/dwf zoo iris -o $(BUILD)/bench/zoo --count 112
	@$(TARGET)/release/dwf train $(BUILD)/bench/zoo -o $(BUILD)/bench/reference.onnx \
		--basis linear --latent 99 --width 512 --steps 2000 --coupling ot
	@PYTHONPATH=$(BUILD)/pytorch python3 benches/pytorch.py $(BUILD)/bench/reference.onnx \
		$(TARGET)/release/libdwf.so

goals: .ort/libonnxruntime.so
	@$(CARGO) build --release -p dwf-trainer
	@nice benches/goals.py

# The test or bench that a command of cargo's builds.
built = "$$($(CARGO) $(1) --no-run --message-format json | python3 -c 'import json, sys; \
	print([m["executable"] for m in map(json.loads, sys.stdin) \
	if m.get("executable") and m["target"]["kind"] != ["bin"]][-1])')"
TRAINER_CUDA := -p dwf-trainer --features cuda

# A folder that also runs on another machine.
gpu-check-files:
	@$(CARGO) build --release -p libdwf
	@rm -rf $(BUILD)/gpu-check && mkdir -p $(BUILD)/gpu-check
	@cp $(call built,test --release -p libdwf --lib) $(BUILD)/gpu-check/unit-tests
	@cp $(call built,test --release $(TRAINER_CUDA) --test cuda) $(BUILD)/gpu-check/trainer-tests
	@cp $(call built,bench $(TRAINER_CUDA) --bench training) $(BUILD)/gpu-check/training
	@cp tests/gpu/run benches/pytorch.py benches/training.py $(TARGET)/release/libdwf.so \
		$(BUILD)/gpu-check

gpu-check: gpu-check-files
	@$(BUILD)/gpu-check/run

fuzz: .ort/libonnxruntime.so
	@fuzz/run 600

$(BUILD)/load: tests/c/load.c include/dwf.h FORCE
	@mkdir -p $(BUILD)
	@$(CARGO) build --release -p libdwf
	@$(CC) $(CFLAGS) -D_POSIX_C_SOURCE=200809L -pthread -Iinclude $< -o $@ \
		-L$(TARGET)/release -Wl,-rpath,$(abspath $(TARGET)/release) -ldwf -lm

# The C programs of the tests under GCC's address and undefined-behaviour sanitizers. Leaks are not
# theirs: ONNX Runtime keeps what it has until the process ends. Left out: one that only compiles, with
# clang too. What limits the address space, which the sanitizer needs, says that it is skipped.
sanitize: .ort/libonnxruntime.so
	@DWF_TEST_CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=all" \
		ASAN_OPTIONS=detect_leaks=0 $(CARGO) test --release -p libdwf --test capi \
		--test conformance -- --skip the_header --show-output

# The same programs under valgrind, leaks included. What it finds in others' code is in
# tests/valgrind.supp. Left out: the documents' excerpts, which leave freeing to the end of the process.
valgrind: .ort/libonnxruntime.so
	@DWF_TEST_RUNNER="valgrind --quiet --error-exitcode=99 --leak-check=full \
		--errors-for-leak-kinds=definite --show-leak-kinds=definite \
		--suppressions=$(CURDIR)/tests/valgrind.supp" DWF_TEST_CFLAGS=-g \
		$(CARGO) test --release -p libdwf --test capi --test conformance -- \
		--skip the_header --skip the_readme --skip the_guide --show-output

# Threads that meet, under the thread sanitizer: the library and Rust's own, not ONNX Runtime.
tsan: .ort/libonnxruntime.so
	@RUSTFLAGS=-Zsanitizer=thread TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp" \
		$(CARGO) $(NIGHTLY) test -Zbuild-std --target $(HOST) --target-dir $(TARGET)/tsan \
		--release -p libdwf --test threads

# What calls no foreign code: kernels, the list of operators, artifacts in memory, layouts, noise,
# solvers. Miri's own functions would err by a few last bits at random, like other machines' do.
miri:
	@export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-deterministic-floats" && \
	miri="$(CARGO) $(NIGHTLY) miri test --target-dir $(TARGET)/miri -p libdwf" && \
	$$miri --lib -- kernel:: graph:: && \
	$$miri --test artifact -- in_memory fit_the_address_space && \
	$$miri --test properties -- layouts gaps && \
	$$miri --test noise -- golden && \
	$$miri --test ode

reproducible:
	@.ci/check-reproducible

# tests/c/load.c says why glibc is told so.
load: $(BUILD)/load .ort/libonnxruntime.so
	@GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072:glibc.malloc.tcache_count=0 \
		$(BUILD)/load $(IRIS)/iris.onnx 32 1000000 600 10000 1

lint:
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	@for package in $(PACKAGES); do \
		$(CARGO) clippy --release -p $$package --all-targets -- -D warnings; done
	@$(CARGO) clippy --release -p dwf-trainer --features cuda --all-targets -- -D warnings

clean:
	@rm -rf $(BUILD)
	@$(CARGO) clean --release -p libdwf -p dwf-trainer

FORCE:
