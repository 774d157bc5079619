# make install    headers, libraries, dwf.pc and a CMake package into $(DESTDIR)$(PREFIX); the last
#                 two find their files from where they lie, so the folder may be moved
# make install-cmake  the CMake package alone
# make uninstall  removes all of it
# make dist       build/libdwf-VERSION-linux-ARCH.tar.gz: the same with ONNX Runtime and an example,
#                 for a machine without toolchain

# Packagers who have cargo-c get the same files, but for the CMake package, by
#     cargo cinstall -p libdwf --release --destdir=... --prefix=... --libdir=... --includedir=...
# (tests/install.rs compares). Its dwf.pc names the prefix, so that the folder is not to be moved.
# CARGO_BUILD_TARGET, as cargo itself takes it, cross-compiles.

.PHONY: install install-cmake uninstall dist

TARGET ?= $(or $(CARGO_TARGET_DIR),target)
BUILD ?= build
CARGO ?= cargo
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
MAJOR := $(firstword $(subst ., ,$(VERSION)))
DESCRIPTION := $(shell sed -n 's/^description = "\(.*\)"$$/\1/p' Cargo.toml)
SONAME := libdwf.so.$(MAJOR)
# What rustc says that the static library needs, but for what every C compiler adds.
STATIC_LIBS := -lgcc_s -lpthread -ldl -lm
CMAKEDIR := $(LIBDIR)/cmake/dwf
PCDIR := $(LIBDIR)/pkgconfig

# A profile of its own: a library with a SONAME would not serve programs that are run from
# target/release, where it lies under one name only.
RELEASED := $(TARGET)/$(if $(CARGO_BUILD_TARGET),$(CARGO_BUILD_TARGET)/)dist
SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs')

$(RELEASED)/libdwf.so: $(SOURCES)
	@$(CARGO) rustc --profile dist --config 'profile.dist.inherits="release"' \
		--config 'profile.dist.strip=true' -p libdwf --lib --crate-type cdylib,staticlib -- \
		-C link-arg=-Wl,-soname,$(SONAME)
	@touch $@

# $(call from,FOLDER,BASE): FOLDER as it is reached from BASE.
from = $(shell realpath --canonicalize-missing --no-symlinks --relative-to=$(2) $(1))

# $(call fill,FILE,FOLDER,LIBS): FILE.in with its blanks filled, installed into FOLDER.
define fill
	@sed -e 's|@PREFIX@|$(call from,$(PREFIX),$(2))|g' -e 's|@VERSION@|$(VERSION)|g' \
		-e 's|@LIBDIR@|$(call from,$(LIBDIR),$(PREFIX))|g' -e 's|@MAJOR@|$(MAJOR)|g' \
		-e 's|@INCLUDEDIR@|$(call from,$(INCLUDEDIR),$(PREFIX))|g' -e 's|@LIBS@|$(3)|g' \
		-e 's|@DESCRIPTION@|$(DESCRIPTION)|g' -e 's|@SONAME@|$(SONAME)|g' \
		$(1).in | install -Dm644 /dev/stdin $(DESTDIR)$(2)/$(notdir $(1))
endef

install: $(RELEASED)/libdwf.so install-cmake
	@install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(INCLUDEDIR)
	@install -m644 include/dwf.h include/dwf.hpp $(DESTDIR)$(INCLUDEDIR)
	@install -m755 $(RELEASED)/libdwf.so $(DESTDIR)$(LIBDIR)/libdwf.so.$(VERSION)
	@ln -sf libdwf.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	@ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libdwf.so
	@install -m644 $(RELEASED)/libdwf.a $(DESTDIR)$(LIBDIR)
	@strip --strip-debug $(DESTDIR)$(LIBDIR)/libdwf.a
	$(call fill,dwf.pc,$(PCDIR),$(STATIC_LIBS))
	@echo "libdwf $(VERSION) is in $(DESTDIR)$(PREFIX)"

install-cmake:
	$(call fill,cmake/dwf-config.cmake,$(CMAKEDIR),$(subst $() ,;,$(STATIC_LIBS)))
	$(call fill,cmake/dwf-config-version.cmake,$(CMAKEDIR))

uninstall:
	@rm -f $(addprefix $(DESTDIR)$(INCLUDEDIR)/,dwf.h dwf.hpp) $(DESTDIR)$(PCDIR)/dwf.pc \
		$(addprefix $(DESTDIR)$(LIBDIR)/,libdwf.so libdwf.a $(SONAME) libdwf.so.$(VERSION))
	@rm -rf $(DESTDIR)$(CMAKEDIR)

PACKAGE := libdwf-$(VERSION)-linux-$(shell uname -m)
STAGE := $(BUILD)/$(PACKAGE)
IRIS ?= examples/iris
# The folder of the pinned ONNX Runtime and its licences.
ONNXRUNTIME = $(dir $(realpath .ort/libonnxruntime.so))

# Where the licences of the crates inside libdwf are.
CRATES := $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src

dist: $(RELEASED)/libdwf.so
	@.ci/onnxruntime
	@rm -rf $(STAGE)
	@$(MAKE) --no-print-directory -f install.mk install DESTDIR=$(abspath $(STAGE)) PREFIX=/ LIBDIR=/lib \
		INCLUDEDIR=/include >/dev/null
	@install -m755 $(ONNXRUNTIME)libonnxruntime.so.* $(STAGE)/lib
	@install -d $(addprefix $(STAGE)/,bin share/dwf share/doc/dwf/onnxruntime)
	@$(CC) -std=c99 -O2 -I$(STAGE)/include examples/spawn.c -o $(STAGE)/bin/spawn \
		-L$(STAGE)/lib -Wl,-rpath,'$$ORIGIN/../lib' -ldwf -lm
	@install -m644 examples/spawn.c $(addprefix $(IRIS)/,iris.onnx iris.safetensors held-out.csv \
		zoo.f32) $(STAGE)/share/dwf
	@install -m644 README.md LICENSE-* $(STAGE)/share/doc/dwf
	@install -Dm644 -t $(STAGE)/share/doc/dwf/docs docs/*.md
	@install -m644 $(addprefix $(ONNXRUNTIME),LICENSE ThirdPartyNotices.txt) \
		$(STAGE)/share/doc/dwf/onnxruntime
	@$(CARGO) tree -p libdwf --edges normal --prefix none --format '{p}' | \
	sort -u | grep -v '^libdwf ' | while read -r crate version _; do \
		find $(CRATES)/*/$$crate-$${version#v} -maxdepth 1 -name 'LICEN[CS]E*' -exec \
			install -Dm644 -t $(STAGE)/share/doc/dwf/crates/$$crate {} +; \
	done
	@tar -C $(BUILD) --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 \
		-czf $(STAGE).tar.gz $(PACKAGE)
	@rm -rf $(STAGE)
	@echo "$(STAGE).tar.gz"
