#!/usr/bin/env python3
"""Wraps clang and clang++ of Debian's LLVM 22 when V8 is built from source.

The wrapper drops three flags that only clang 23 knows. It also more than halves the time of the
build: code that only the snapshot generator needs is not optimized, and files that include the same
large headers share a precompiled header. If a call with these changes fails, it is repeated without
them.
"""

import fcntl
import hashlib
import os
import subprocess
import sys

CLANG = os.path.join("/usr/lib/llvm-22/bin", os.path.basename(sys.argv[0]))

# The flags that clang 22 does not know.
UNKNOWN = (
    "-fdiagnostics-show-inlining-chain",
    "-fno-lifetime-dse",
    "-fsanitize-ignore-for-ubsan-feature=",
)

# The outputs that only the snapshot generator needs.
SNAPSHOT_GENERATOR_ONLY = ("obj/v8/torque_generated_initializers/", "obj/v8/v8_initializers/")

# The headers that most files of a group include first.
SHARED_HEADERS = {
    "obj/v8/v8_base_without_compiler/": (
        "api/api-inl.h", "execution/isolate-inl.h", "heap/heap-inl.h", "heap/factory-inl.h",
        "objects/objects-inl.h", "objects/js-objects-inl.h", "objects/map-inl.h",
        "objects/string-inl.h", "handles/handles-inl.h",
    ),
    "obj/v8/v8_compiler/": (
        "compiler/js-heap-broker-inl.h", "compiler/turboshaft/assembler.h",
        "compiler/turboshaft/operations.h", "compiler/js-graph.h", "compiler/simplified-operator.h",
        "compiler/node-matchers.h", "objects/objects-inl.h", "execution/isolate-inl.h",
    ),
}


def after(arguments, flag):
    """Returns the argument after the flag, or an empty string."""
    return arguments[arguments.index(flag) + 1] if flag in arguments[:-1] else ""


def without(arguments, *flags):
    """Returns the arguments without these flags and the argument after each."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in flags:
            skip = True
        else:
            kept.append(argument)
    return kept


def compiled_header(arguments, group, headers):
    """Returns the path of the precompiled header for these arguments, or None if there is none.

    The first call with these arguments compiles the header.
    """
    source = after(arguments, "-c")
    if not source.endswith((".cc", ".cpp")):
        return None
    common = without(arguments, "-c", "-o", "-MF")
    common = [argument for argument in common if argument not in ("-MD", "-MMD")]
    name = hashlib.sha1("\0".join(common + [group]).encode()).hexdigest()[:16]
    directory = "shared_headers"
    os.makedirs(directory, exist_ok=True)
    header = os.path.join(directory, name + ".h")
    with open(header + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(header + ".failed"):
            return None
        if not os.path.exists(header + ".pch"):
            with open(header, "w", encoding="utf-8") as file:
                file.writelines(f'#include "src/{name}"\n' for name in headers)
            made = subprocess.run(
                [CLANG, *common, "-x", "c++-header", header, "-o", header + ".pch"],
                stderr=subprocess.DEVNULL,
                check=False,
            )
            if made.returncode != 0:
                open(header + ".failed", "w", encoding="utf-8").close()
                return None
    return header + ".pch"


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith(UNKNOWN)] + ["-w"]
    output = after(arguments, "-o")
    faster = list(arguments)
    if output.startswith(SNAPSHOT_GENERATOR_ONLY):
        faster += ["-O0"]
    for group, headers in SHARED_HEADERS.items():
        if output.startswith(group):
            # The module name differs from file to file, so no header would be shared.
            faster = [argument for argument in faster if not argument.startswith("-fmodule-name=")]
            header = compiled_header(faster, group, headers)
            if header:
                faster += ["-include-pch", header]
    if faster != arguments:
        made = subprocess.run([CLANG, *faster], stderr=subprocess.DEVNULL, check=False)
        if made.returncode == 0:
            return 0
    return subprocess.run([CLANG, *arguments], check=False).returncode


sys.exit(main())
