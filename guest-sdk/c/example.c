/*
 * A guest that returns its argument `in` in upper case (A to Z only), without a C library.
 *
 *   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o example.wasm example.c
 *   manifold run example.wasm --arg in=hello
 */
#include <stdbool.h>

#include "manifold_guest.h"

/* Where requests are built and responses are written. */
static uint8_t request[1 << 16];
static uint8_t response[1 << 16];

/* Fails the job. */
static void fail(const char *message) {
    uint32_t length = 0;
    request[length++] = MANIFOLD_OP_FAIL;
    while (*message != 0) request[length++] = (uint8_t)*message++;
    manifold_call(request, length, response, sizeof response);
}

/* Returns the number of four bytes at `bytes`, least significant first. */
static uint32_t count_at(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/*
 * Sends the request of `length` bytes and returns the length of the response, which is in
 * `response`. Fails the job and returns 0 if the response is an error or too long.
 */
static uint32_t call(uint32_t length) {
    uint32_t received = manifold_call(request, length, response, sizeof response);
    if (received > sizeof response) {
        fail("the response is longer than this guest expects");
        return 0;
    }
    if (response[0] != 0) {
        /* Passes the host's message on: a text after the byte 1. It fits, because it is shorter
           than the response. */
        uint32_t message = count_at(response + 1);
        request[0] = MANIFOLD_OP_FAIL;
        for (uint32_t at = 0; at < message; at++) request[1 + at] = response[5 + at];
        manifold_call(request, 1 + message, response, sizeof response);
        return 0;
    }
    return received;
}

/* Writes the request for `operation` on the id at `id`, which begins with its length. */
static uint32_t with_id(uint8_t operation, const uint8_t *id) {
    request[0] = operation;
    for (uint32_t at = 0; at <= id[0]; at++) request[1 + at] = id[at];
    return 2 + id[0];
}

void caos_run(void) {
    /* The job begins with the id of the arguments tree, after the zero byte. */
    request[0] = MANIFOLD_OP_JOB;
    if (call(1) == 0 || call(with_id(MANIFOLD_OP_TREE, response + 1)) == 0) return;

    /* The entries of the tree: mode, id and name. */
    uint32_t entries = count_at(response + 1);
    const uint8_t *entry = response + 5;
    const uint8_t *in = 0;
    for (uint32_t index = 0; index < entries; index++) {
        const uint8_t *id = entry + 1;
        const uint8_t *name = id + 1 + id[0];
        uint32_t length = count_at(name);
        if (length == 2 && name[4] == 'i' && name[5] == 'n') in = id;
        entry = name + 4 + length;
    }
    if (in == 0) {
        fail("the argument `in` is missing");
        return;
    }

    /* The content after the zero byte becomes the content after the operation's byte. */
    uint32_t length = call(with_id(MANIFOLD_OP_GET, in));
    if (length == 0) return;
    request[0] = MANIFOLD_OP_PUT_BLOB;
    for (uint32_t at = 1; at < length; at++) {
        bool lower = 'a' <= response[at] && response[at] <= 'z';
        request[at] = (uint8_t)(lower ? response[at] - 'a' + 'A' : response[at]);
    }
    if (call(length) == 0) return;

    /* The outcome is the blob. */
    request[0] = MANIFOLD_OP_OUT;
    request[1] = MANIFOLD_KIND_BLOB;
    for (uint32_t at = 0; at <= response[1]; at++) request[2 + at] = response[1 + at];
    call(3 + response[1]);
}
