/*
 * The guest ABI of Manifold for WebAssembly modules in C.
 *
 * A guest is a pure function over git objects. The host calls its export `caos_run` once for a job.
 * The guest sends requests to the host, such as "read this blob", and receives a response to each.
 * Its last request names the outcome. Every module has a fresh instance for each job.
 *
 * A module exports
 *   - `memory`: its 32-bit memory, which the linker exports by itself;
 *   - `caos_run`: a function without parameters and results;
 * and imports the functions below. It may use either encoding, or both.
 *
 * Build a guest with
 *
 *   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o guest.wasm guest.c
 *   manifold run guest.wasm --arg in=hello
 *
 * `example.c` is a complete guest. The documentation of the crate `manifold-runtime-api`, module
 * `abi`, is the reference.
 */
#ifndef MANIFOLD_GUEST_H
#define MANIFOLD_GUEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Attributes that clang needs for wasm. Other compilers ignore them, so that they can check a
 * guest's source.
 */
#ifdef __wasm__
#define MANIFOLD_IMPORT(module, name) \
    __attribute__((import_module(module), import_name(name)))
#define MANIFOLD_EXPORT(name) __attribute__((export_name(name)))
#else
#define MANIFOLD_IMPORT(module, name)
#define MANIFOLD_EXPORT(name)
#endif

/* The entry point, which the guest defines. */
MANIFOLD_EXPORT("caos_run")
void caos_run(void);

/*
 * The binary encoding, `caos_abi_v2`. It costs a third of what JSON costs.
 *
 * A request is one byte with the operation, and its fields. A response is a zero byte and its
 * fields, or an error. The fields are
 *
 *   id      its length in one byte (20 for SHA-1), then its raw bytes
 *   text    its length in four bytes, least significant first, then its bytes
 *   count   four bytes, least significant first
 *   number  eight bytes, least significant first
 *   kind    one byte: enum manifold_kind
 *   mode    one byte: enum manifold_mode
 *   rest    all remaining bytes
 *
 *   operation              fields of the request       fields of the response
 *   MANIFOLD_OP_JOB        none                        id args, id std (of length 0 if there is
 *                                                      none), text image, text salt
 *   MANIFOLD_OP_TREE       id                          count, and for each entry: mode, id, text
 *                                                      name
 *   MANIFOLD_OP_GET        id                          rest: the content
 *   MANIFOLD_OP_PUT_BLOB   rest: the content           id
 *   MANIFOLD_OP_PUT_TREE   count, and for each entry   id
 *                          in any order: mode, id,
 *                          text name
 *   MANIFOLD_OP_RUN        id args, text image         kind, id
 *   MANIFOLD_OP_RUN_MANY   count, and for each call:   count, and for each call in order: a zero
 *                          id args, text image         byte, kind and id; or an error
 *   MANIFOLD_OP_OUT        kind, id                    none; names the outcome: exactly one
 *                                                      OUT or OUT_BLOB in a job
 *   MANIFOLD_OP_LOG        rest: the message           none
 *   MANIFOLD_OP_FAIL       rest: the message           none; ends the job
 *   MANIFOLD_OP_SIZE       id                          number: the size in bytes
 *   MANIFOLD_OP_GET_RANGE  id, number offset,          rest, shorter than length at the end of
 *                          number length               the blob
 *   MANIFOLD_OP_JOB_WITH_ARGS
 *                          none                        as MANIFOLD_OP_JOB, then as
 *                                                      MANIFOLD_OP_TREE for the arguments
 *   MANIFOLD_OP_OUT_BLOB   rest: the content           none; stores a blob and names it as the
 *                                                      outcome
 *
 * An error is a byte of value 1, a text with the message, a text with the kind (`guest`, `request`,
 * `limit`, `runtime`, `store` or `cancelled`), a count, and as many texts with the messages of the
 * error and its causes.
 *
 * A request that is malformed ends the job. So does a request or a response over its limit, by
 * default 64 MiB.
 */
enum manifold_operation {
    MANIFOLD_OP_JOB = 1,
    MANIFOLD_OP_TREE = 2,
    MANIFOLD_OP_GET = 3,
    MANIFOLD_OP_PUT_BLOB = 4,
    MANIFOLD_OP_PUT_TREE = 5,
    MANIFOLD_OP_RUN = 6,
    MANIFOLD_OP_RUN_MANY = 7,
    MANIFOLD_OP_OUT = 8,
    MANIFOLD_OP_LOG = 9,
    MANIFOLD_OP_FAIL = 10,
    MANIFOLD_OP_SIZE = 11,
    MANIFOLD_OP_GET_RANGE = 12,
    MANIFOLD_OP_JOB_WITH_ARGS = 13,
    MANIFOLD_OP_OUT_BLOB = 14
};

enum manifold_kind { MANIFOLD_KIND_BLOB = 0, MANIFOLD_KIND_TREE = 1 };

/* Git's modes 40000, 100644, 100755, 120000 and 160000. */
enum manifold_mode {
    MANIFOLD_MODE_TREE = 0,
    MANIFOLD_MODE_FILE = 1,
    MANIFOLD_MODE_EXECUTABLE = 2,
    MANIFOLD_MODE_SYMLINK = 3,
    MANIFOLD_MODE_COMMIT = 4
};

/*
 * Sends the request of `length` bytes at `request` and returns the length of the response in bytes.
 * Writes the response to `room` if it is at most `capacity` bytes long.
 */
MANIFOLD_IMPORT("caos_abi_v2", "call")
uint32_t manifold_call(const void *request, uint32_t length, void *room, uint32_t capacity);

/*
 * Writes the response to the last `manifold_call` to `response`, for a response that was longer
 * than the capacity. May be called more than once.
 */
MANIFOLD_IMPORT("caos_abi_v2", "read")
void manifold_read(void *response);

/*
 * The JSON encoding, `caos_abi_v1`. Requests and responses are JSON objects in UTF-8, with the same
 * operations:
 *
 *   {"op":"job"}                         {"args":ID,"std":ID or "","salt":TEXT,"image":TEXT}
 *   {"op":"job_with_args"}               the fields of `job`, and of `tree` for the arguments
 *   {"op":"tree","hash":ID}              {"entries":[{"name","kind","hash","mode"}]}
 *   {"op":"get","hash":ID}               {"bytes_b64":BASE64}
 *   {"op":"get_range","hash":ID,"offset":NUMBER,"length":NUMBER}
 *                                        {"bytes_b64":BASE64}
 *   {"op":"size","hash":ID}              {"size":NUMBER}
 *   {"op":"put_blob","bytes_b64":BASE64} {"hash":ID}
 *   {"op":"put_tree","entries":[{"name","kind","hash","mode"}]}
 *                                        {"hash":ID}
 *   {"op":"run","image":TEXT,"args":ID}  {"kind":"blob" or "tree","hash":ID}
 *   {"op":"run_many","reqs":[{"image","args"}]}
 *                                        {"results":[{"kind","hash"} or {"error"}]}
 *   {"op":"out","kind":"blob" or "tree","hash":ID}
 *                                        {}
 *   {"op":"out_blob","bytes_b64":BASE64} {}
 *   {"op":"log","msg":TEXT}              {}
 *   {"op":"fail","message":TEXT}         {}
 *
 * ID is an id as hexadecimal digits. An error is {"error":TEXT,"kind":TEXT,"chain":[TEXT]}. A name
 * that is not UTF-8 is in `name_b64`.
 */

/* Sends the request of `length` bytes at `request` and returns the length of the response. */
MANIFOLD_IMPORT("caos_abi_v1", "call")
uint32_t manifold_call_json(const void *request, uint32_t length);

/* Writes the response to the last `manifold_call_json` to `response`. */
MANIFOLD_IMPORT("caos_abi_v1", "read")
void manifold_read_json(void *response);

#ifdef __cplusplus
}
#endif

#endif
