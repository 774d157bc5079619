# make examples       builds the examples of examples/ beside spawn.c
# make swarm          opens the swarm's window
# make test-examples  builds them with all warnings, runs them and checks what they say

.PHONY: examples swarm test-examples examples-library

EXAMPLES := $(BUILD)/examples
EXAMPLE_WARNINGS := -Wall -Wextra -Wpedantic
EXAMPLE_CC = $(CC) -std=c99 -O2 $(EXAMPLE_WARNINGS) -Iinclude
EXAMPLE_CXX = $(CXX) -std=c++17 -O2 $(EXAMPLE_WARNINGS) -Iinclude
EXAMPLE_LIBS := -L$(TARGET)/release -Wl,-rpath,$(abspath $(TARGET)/release) -ldwf -lm

examples: $(EXAMPLES)/robot $(EXAMPLES)/ort_handoff $(EXAMPLES)/swarm

swarm: $(EXAMPLES)/swarm
	@$< examples/swarm/cartpole.onnx

test-examples:
	@examples/test

# The libraries that the examples find at run time.
examples-library: .ort/libonnxruntime.so
	@mkdir -p $(EXAMPLES)
	@$(CARGO) build --release -p libdwf

$(EXAMPLES)/robot: examples/robot.c examples/allocations.c examples/allocations.h \
		examples/realtime.c examples/realtime.h examples/cartpole.h include/dwf.h | examples-library
	@$(EXAMPLE_CC) $(filter %.c,$^) -o $@ $(EXAMPLE_LIBS) -ldl

$(EXAMPLES)/ort_handoff: examples/ort_handoff.c examples/cartpole.h include/dwf.h | examples-library
	@header=$$(examples/ort-header); \
		$(EXAMPLE_CC) -isystem "$$header" $< -o $@ $(EXAMPLE_LIBS) -ldl

$(EXAMPLES)/swarm: examples/swarm/main.cpp $(wildcard examples/swarm/*.hpp) examples/cartpole.h \
		include/dwf.h include/dwf.hpp | examples-library
	@$(EXAMPLE_CXX) $$(pkg-config --cflags sdl2 zlib) $< -o $@ \
		$(EXAMPLE_LIBS) $$(pkg-config --libs sdl2 zlib) -pthread
