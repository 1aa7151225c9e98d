/* SPDX-License-Identifier: BSD-2-Clause */
/* nbd-protocol.h - NBD as it is on the wire: structures and constants, nothing else.
 *
 * Names and numbers are those of the specification (doc/proto.md of the nbd project), shortened;
 * all numbers are big-endian.  Extended headers are those of its branch extension-ext-header,
 * RESIZE of extension-resize.  What is reserved or experimental and not spoken here is left out.
 */
#ifndef LACUNA_NBD_PROTOCOL_H
#define LACUNA_NBD_PROTOCOL_H

#include "base/bytes.h"

#define NBD_PORT 10809
#define NBD_STRING_MAX 4096        /* longest string of the protocol: names, queries, error texts */

/* --- handshake: fixed newstyle --- */

#define NBD_MAGIC UINT64_C (0x4e42444d41474943)              /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C (0x49484156454f5054)       /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C (0x0003e889045565a9)

struct nbd_hello {
  be64 magic;
  be64 version;                    /* NBD_OPTION_MAGIC: newstyle */
  be16 flags;
} __attribute__ ((packed));

/* In the hello, and in the client's answer. */
enum nbd_handshake_flags { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

struct nbd_option {
  be64 magic;
  be32 option;
  be32 length;
} __attribute__ ((packed));

enum nbd_option_kind {
  NBD_OPT_EXPORT_NAME = 1,
  NBD_OPT_ABORT = 2,
  NBD_OPT_LIST = 3,
  NBD_OPT_STARTTLS = 5,
  NBD_OPT_INFO = 6,
  NBD_OPT_GO = 7,
  NBD_OPT_STRUCTURED_REPLY = 8,
  NBD_OPT_LIST_META_CONTEXT = 9,
  NBD_OPT_SET_META_CONTEXT = 10,
  NBD_OPT_EXTENDED_HEADERS = 11,
};

struct nbd_option_reply {
  be64 magic;
  be32 option;
  be32 type;
  be32 length;
} __attribute__ ((packed));

enum nbd_reply_type {
  NBD_REP_ACK = 1,
  NBD_REP_SERVER = 2,
  NBD_REP_INFO = 3,
  NBD_REP_META_CONTEXT = 4,
};

#define NBD_REP_ERROR(n) (UINT32_C (0x80000000) + (n))
#define NBD_REP_ERR_UNSUP NBD_REP_ERROR (1)
#define NBD_REP_ERR_POLICY NBD_REP_ERROR (2)
#define NBD_REP_ERR_INVALID NBD_REP_ERROR (3)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERROR (5)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERROR (6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERROR (7)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERROR (9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERROR (10)

/* The answer to NBD_OPT_EXPORT_NAME; the zeroes are left out if the client said NBD_NO_ZEROES. */
struct nbd_export_name_reply {
  be64 size;
  be16 flags;
  uint8_t zeroes[124];
} __attribute__ ((packed));
#define NBD_EXPORT_NAME_REPLY_SHORT 10

enum nbd_info_type { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_BLOCK_SIZE = 3 };

struct nbd_info_export {
  be16 type;
  be64 size;
  be16 flags;
} __attribute__ ((packed));

struct nbd_info_block_size {
  be16 type;
  be32 minimum;
  be32 preferred;
  be32 maximum;                    /* of a payload */
} __attribute__ ((packed));

enum nbd_transmission_flags {
  NBD_HAS_FLAGS = 1 << 0,
  NBD_READ_ONLY = 1 << 1,
  NBD_SEND_FLUSH = 1 << 2,
  NBD_SEND_FUA = 1 << 3,
  NBD_SEND_TRIM = 1 << 5,
  NBD_SEND_WRITE_ZEROES = 1 << 6,
  NBD_SEND_DF = 1 << 7,
  NBD_CAN_MULTI_CONN = 1 << 8,
  NBD_SEND_RESIZE = 1 << 9,
  NBD_SEND_CACHE = 1 << 10,
  NBD_SEND_FAST_ZERO = 1 << 11,
  NBD_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

/* --- transmission --- */

#define NBD_REQUEST_MAGIC UINT32_C (0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C (0x67446698)
#define NBD_CHUNK_MAGIC UINT32_C (0x668e33ef)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C (0x21e41c71)
#define NBD_EXTENDED_CHUNK_MAGIC UINT32_C (0x6e8a278c)

struct nbd_request {
  be32 magic;
  be16 flags;
  be16 command;
  be64 cookie;
  be64 offset;
  be32 length;
} __attribute__ ((packed));

struct nbd_extended_request {
  be32 magic;
  be16 flags;
  be16 command;
  be64 cookie;
  be64 offset;
  be64 length;                     /* of the payload with NBD_CMD_FLAG_PAYLOAD_LEN, else of the
                                      range */
} __attribute__ ((packed));

enum nbd_command {
  NBD_CMD_READ = 0,
  NBD_CMD_WRITE = 1,
  NBD_CMD_DISC = 2,
  NBD_CMD_FLUSH = 3,
  NBD_CMD_TRIM = 4,
  NBD_CMD_CACHE = 5,
  NBD_CMD_WRITE_ZEROES = 6,
  NBD_CMD_BLOCK_STATUS = 7,
  NBD_CMD_RESIZE = 8,
};
#define NBD_CMD_COUNT 9

enum nbd_command_flags {
  NBD_CMD_FLAG_FUA = 1 << 0,
  NBD_CMD_FLAG_NO_HOLE = 1 << 1,
  NBD_CMD_FLAG_DF = 1 << 2,
  NBD_CMD_FLAG_REQ_ONE = 1 << 3,
  NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
  NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

struct nbd_simple_reply {
  be32 magic;
  be32 error;
  be64 cookie;
} __attribute__ ((packed));

/* With structured replies a reply is a row of chunks, each a header and what its type has. */
struct nbd_chunk {
  be32 magic;
  be16 flags;
  be16 type;
  be64 cookie;
  be32 length;                     /* of what follows */
} __attribute__ ((packed));

struct nbd_extended_chunk {
  be32 magic;
  be16 flags;
  be16 type;
  be64 cookie;
  be64 offset;                     /* the request's */
  be64 length;
} __attribute__ ((packed));

enum nbd_chunk_flags { NBD_CHUNK_DONE = 1 };

enum nbd_chunk_type {
  NBD_CHUNK_NONE = 0,
  NBD_CHUNK_OFFSET_DATA = 1,
  NBD_CHUNK_OFFSET_HOLE = 2,
  NBD_CHUNK_BLOCK_STATUS = 5,
  NBD_CHUNK_BLOCK_STATUS_EXTENDED = 6,
  NBD_CHUNK_ERROR = 0x8001,
};

/* What begins the payload of a chunk. */

struct nbd_data {                  /* data follows */
  be64 offset;
} __attribute__ ((packed));

struct nbd_hole {
  be64 offset;
  be32 length;
} __attribute__ ((packed));

struct nbd_status {                /* nbd_extents follow */
  be32 context;
} __attribute__ ((packed));

struct nbd_extent {
  be32 length;
  be32 flags;
} __attribute__ ((packed));

struct nbd_extended_status {       /* nbd_extended_extents follow */
  be32 context;
  be32 count;
} __attribute__ ((packed));

struct nbd_extended_extent {
  be64 length;
  be64 flags;
} __attribute__ ((packed));

struct nbd_error_text {            /* text follows */
  be32 error;
  be16 text_length;
} __attribute__ ((packed));

/* The payload of BLOCK_STATUS; ids of contexts follow. */
struct nbd_status_filter {
  be64 length;                     /* of the range */
} __attribute__ ((packed));

enum nbd_error {
  NBD_SUCCESS = 0,
  NBD_EPERM = 1,
  NBD_EIO = 5,
  NBD_ENOMEM = 12,
  NBD_EINVAL = 22,
  NBD_ENOSPC = 28,
  NBD_EOVERFLOW = 75,
  NBD_ENOTSUP = 95,
  NBD_ESHUTDOWN = 108,
};

_Static_assert (sizeof (struct nbd_hello) == 18, "wire");
_Static_assert (sizeof (struct nbd_option) == 16, "wire");
_Static_assert (sizeof (struct nbd_option_reply) == 20, "wire");
_Static_assert (sizeof (struct nbd_export_name_reply) == 134, "wire");
_Static_assert (sizeof (struct nbd_info_export) == 12, "wire");
_Static_assert (sizeof (struct nbd_info_block_size) == 14, "wire");
_Static_assert (sizeof (struct nbd_request) == 28, "wire");
_Static_assert (sizeof (struct nbd_simple_reply) == 16, "wire");
_Static_assert (sizeof (struct nbd_chunk) == 20, "wire");
_Static_assert (sizeof (struct nbd_extended_request) == 32, "wire");
_Static_assert (sizeof (struct nbd_extended_chunk) == 32, "wire");
_Static_assert (sizeof (struct nbd_hole) == 12, "wire");
_Static_assert (sizeof (struct nbd_error_text) == 6, "wire");

#endif
