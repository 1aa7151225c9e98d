/* SPDX-License-Identifier: BSD-2-Clause */
/* text.h - sizes and UUIDs as people write them, and what is text at all.
 *
 * Pure functions: no memory is kept, nothing waits, any thread.
 */
#ifndef LACUNA_TEXT_H
#define LACUNA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "512M", "20G", "1T", "4096": a decimal number of bytes, or of KiB, MiB, GiB, TiB, PiB, EiB if
 * one of the letters K, M, G, T, P, E follows (either case).  0, or -EINVAL, -ERANGE with *WHY,
 * a static text that completes "SIZE: ..." (may be NULL). */
int text_parse_size (const char *text, uint64_t *bytes, const char **why);

/* A plain decimal number from MIN to MAX, nothing else before or after it. */
bool text_parse_number (const char *text, uint64_t min, uint64_t max, uint64_t *number);

#define TEXT_SIZE_MAX 24

/* "0 B", "512 B", "1.5 GiB", "20 GiB": at most one decimal, rounded to the nearest.  Returns
 * TEXT. */
const char *text_human_size (uint64_t bytes, char text[TEXT_SIZE_MAX]);

/* The exact size as text_parse_size reads it, as short as it can be: "20G", "4097".  Returns
 * TEXT. */
const char *text_exact_size (uint64_t bytes, char text[TEXT_SIZE_MAX]);

#define TEXT_UUID_SIZE 37

/* 16 bytes as RFC 4122 writes them, lower case.  Returns TEXT. */
const char *text_uuid (const uint8_t uuid[16], char text[TEXT_UUID_SIZE]);

/* Reads one, either case.  False: it is none, or that of zeros. */
bool text_parse_uuid (const char *text, uint8_t uuid[16]);

/* Whether this is UTF-8 without NUL: no overlong forms, no surrogates, nothing past U+10FFFF. */
bool text_is_utf8 (const char *text, size_t length);

#endif
