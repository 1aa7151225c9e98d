/* SPDX-License-Identifier: BSD-2-Clause */
/* format.h - what is on the device.  lacuna-format(5) tells the same in words; a checker must be
 * writable from that page alone.
 *
 * All numbers are little-endian.  A *place* is a block number from the start of the store.  Block
 * 0..3 hold the four superblock copies.  The store is cut into groups of group_blocks; the first
 * meta_blocks of each group are for nodes: a node at place p in the first half has its second copy
 * at p + meta_blocks / 2 (p ^ (meta_blocks / 2)).  The journal (two halves) follows the meta blocks
 * of group 0.  All else is data.  In group 0 the superblocks take nodes 0..3 and their mirrors'
 * places, which are therefore never nodes.
 *
 * Which data blocks are in use is not stored: it follows from the maps, and from the table of
 * shared extents for those that more than one map refers to.
 *
 * A structure is valid if and only if its magic (kind) is right, its checksum is, its store UUID is
 * the store's, its place is where it was read from, and (nodes) its checksum is the one in the
 * pointer that led to it.
 */
#ifndef LACUNA_FORMAT_H
#define LACUNA_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

/* --- limits --- */
/* Bytes, UTF-8 without NUL or control characters. */
#define DISK_NAME_MAX 255
/* So many ids of requests a disk remembers (request-ids.h). */
#define DISK_REQUEST_IDS 16
#define REQUEST_ID_BYTES 16
/* Bytes: 8 EiB - 4 KiB. */
#define DISK_SIZE_MAX ((UINT64_C (1) << 63) - BLOCK_SIZE)
#define PLACE_BITS 42
#define PLACE_MAX ((UINT64_C (1) << PLACE_BITS) - 1)

/* --- superblock --- */
/* 8 bytes; the CR LF finds transfers that change line ends. */
#define SUPERBLOCK_MAGIC "LACUNA\r\n"
/* Places 0..3; sequence s is written to 2 * (s % 2), and when that is durable to the next. */
#define SUPERBLOCK_COPIES 4
#define FORMAT_VERSION 1

/* Feature words: an unknown bit in `incompat` forbids opening, in `ro_compat` writing; `compat` is
 * for information. */
#define FEATURE_INCOMPAT_KNOWN UINT64_C (0)
#define FEATURE_RO_COMPAT_KNOWN UINT64_C (0)

struct format_pointer {        /* 16 bytes */
  le64 place;                  /* 0: there is none (an empty tree) */
  le64 checksum;               /* of the node, as in its header */
};

#define ARENA_PATH_MAX 1024

struct format_superblock {     /* one block, the rest of it zero */
  uint8_t magic[8];
  le64 checksum;               /* of the whole block with this field zero, seed 0 */
  le32 version;                /* FORMAT_VERSION */
  le32 is_clean;               /* 1: closed in order, the journal is empty */
  le64 incompat, ro_compat, compat;
  uint8_t uuid[16];
  le64 sequence;               /* of this superblock: the highest valid one counts */
  le64 place;                  /* 0..3: where this copy lies */
  /* geometry, never changed */
  le64 group_blocks;           /* power of 2 */
  le64 meta_blocks;            /* power of 2, < group_blocks */
  le64 journal_place;          /* first block of half 0; half 1 follows it */
  le64 journal_half_blocks;
  le64 capacity;               /* blocks the store may use; 0: no limit (a file) */
  le64 created;                /* seconds since 1970 */
  /* the state that the nodes hold: everything with a journal position before journal_position */
  struct format_pointer catalogue;  /* tree: disk id -> place of its disk node */
  struct format_pointer shared;     /* tree: extents of the store with more than one owner */
  le64 next_disk_id;           /* ids are never used twice: the incarnation */
  le64 journal_position;       /* item bytes appended before, since the store was made */
  le64 journal_sequence;       /* of the first record to replay */
  le32 journal_half;           /* where it would lie: block 0 of this half */
  le32 journal_durable;        /* so many records, from that one on, were durable when this was
                                  written: that they cannot be read is damage */
  le64 journal_salt;           /* random, new at each opening; seeds the records' checksums */
  le64 journal_chain;          /* `checksum` that the first record has as its `previous` */
  /* the last opening */
  le64 opened;                 /* how often the store was opened for writing */
  uint8_t arena_id[16];        /* of the arena that goes with this state; zero: none */
  uint8_t boot_id[16];         /* of the system that opened it */
  uint8_t arena_path[ARENA_PATH_MAX];  /* NUL-terminated */
};

/* --- nodes --- */
enum format_kind {
  KIND_MAP_LEAF = 0x4c70614d,        /* "MapL" read as bytes */
  KIND_MAP_INNER = 0x4970614d,       /* "MapI" */
  KIND_CATALOGUE_LEAF = 0x4c746143,  /* "CatL" */
  KIND_CATALOGUE_INNER = 0x49746143, /* "CatI" */
  KIND_SHARED_LEAF = 0x4c726853,     /* "ShrL" */
  KIND_SHARED_INNER = 0x49726853,    /* "ShrI" */
  KIND_DISK = 0x6b736944,            /* "Disk" */
};

/* What a node must say of itself. */
struct format_node_identity {
  uint8_t uuid[16];            /* the store's */
  uint64_t owner;              /* disk id; 0 for the catalogue and the shared extents */
  uint64_t sequence;           /* of the superblock it was written for */
  uint32_t leaf_kind;
  uint32_t inner_kind;
};

struct format_node {           /* header of every node, 64 bytes */
  le32 kind;
  le16 level;                  /* 0: leaf, disk node */
  le16 count;                  /* entries */
  le64 checksum;               /* of the whole block with this field zero, seed 0 */
  uint8_t uuid[16];
  le64 place;                  /* of the first copy */
  le64 sequence;
  le64 owner;
  le64 reserved;               /* zero */
};

struct format_leaf_entry {     /* 16 bytes, ascending by key, no two equal */
  le64 key;
  le64 value;
};
struct format_inner_entry {    /* 24 bytes; the first key of the child (or less), ascending */
  le64 key;
  struct format_pointer child;
};
#define LEAF_ENTRIES                                                                               \
  ((BLOCK_SIZE - sizeof (struct format_node)) / sizeof (struct format_leaf_entry))   /* 252 */
#define INNER_ENTRIES                                                                              \
  ((BLOCK_SIZE - sizeof (struct format_node)) / sizeof (struct format_inner_entry))  /* 168 */

/* A map leaf's entry is one extent:
 *   key    bits 63..13  first block of the disk (51 bits)
 *          bits 12..1   zero
 *          bit 0        1: unwritten, 0: written
 *   value  bits 63..22  place (42 bits)
 *          bits 21..0   length in blocks - 1
 * Extents do not overlap, and lie within the disk's size.  Inner keys and searches compare bits
 * 63..13 only, so they have bit 0 clear.
 *
 * A shared leaf's entry is one run of the store with more than one owner:
 *   key                 place
 *   value  bits 63..32  length in blocks
 *          bits 31..0   owners (2 .. OWNERS_MAX)
 *
 * A catalogue leaf's entry is one disk:
 *   key                 disk id
 *   value               place of its disk node (verified by its own checksum, owner = disk id)
 */
#define OWNERS_MAX UINT32_C (0x7fffffff)
#define MAP_KEY_SHIFT 13
#define MAP_KEY_UNWRITTEN UINT64_C (1)
#define MAP_VALUE_PLACE_SHIFT 22
#define MAP_VALUE_LENGTH_MASK ((UINT64_C (1) << MAP_VALUE_PLACE_SHIFT) - 1)

/* A disk node: kind KIND_DISK, level 0, count 1, owner = the disk's id. */
enum format_disk_flags {
  DISK_IS_DYING = 1,           /* deleted: it has no name any more; its extents are being freed */
  DISK_IS_STALE = 2,           /* its map is not what it was: it could not be read when the journal
                                  had more to say of it, which is lost */
};
struct format_disk {
  struct format_node header;
  uint8_t uuid[16];
  le64 size;                   /* bytes, multiple of 4096 */
  le64 flags;
  le64 created;                /* seconds since 1970 */
  struct format_pointer map;   /* root of its map */
  le64 mapped;                 /* blocks in its extents, to be checked against */
  le16 name_length;
  uint8_t name[DISK_NAME_MAX]; /* the rest zero */
  uint8_t reserved[7];         /* zero */
  uint8_t request_ids[DISK_REQUEST_IDS][REQUEST_ID_BYTES];   /* done last, newest first; zeros:
                                                                none */
  le64 data_end;               /* no extent of its map reaches beyond this place; 0: not known */
};

/* --- journal ---
 *
 * A record is one header block, then item bytes (the first in the header block; padded with zeros
 * to a block), then the data blocks of its DATA list, in order.  Records follow each other in a
 * half without gaps; the first of a half is at its block 0.  After the last record of a half the
 * next one may be at block 0 of the other half.
 *
 * Record s + 1 is valid only after s: sequence, and `previous` is s's checksum.
 *
 * Replay: for each record in order: its items in order, then its DATA list.  What remains of DATA
 * at the end is the content of those blocks, over what the maps say.
 */
#define JOURNAL_MAGIC 0x6c6e724a               /* "Jrnl" */
#define JOURNAL_HALVES 2

struct format_record {         /* 96 bytes, then item bytes up to the end of the header block */
  le32 magic;
  le32 block_count;            /* of the record with header, items and data */
  le64 header_checksum;        /* of the header block with this field and `checksum` zero, seed
                                  journal_salt */
  le64 checksum;               /* of the whole record with this field and header_checksum zero, seed
                                  journal_salt */
  uint8_t uuid[16];
  le64 sequence;               /* 1 more than the record before */
  le64 previous;               /* `checksum` of the record before; of the first: journal_chain */
  le64 place;                  /* where it lies */
  le64 position;               /* item bytes before this record since the store was made */
  le32 item_bytes;             /* 8-aligned */
  le32 data_count;             /* blocks of data */
  le32 data_offset;            /* blocks from the record's start to the first data block */
  le32 tail_bytes;             /* of item_bytes: without the DATA items at their end, which have no
                                  position; the next record's position is at least position +
                                  tail_bytes */
  le64 time;                   /* seconds since 1970, for people */
};

enum format_item_kind {
  ITEM_MAP = 1,                /* [block, block + length) of disk lies at place, in state flags
                                  (EXTENT_*); replaces what was there */
  ITEM_UNMAP = 2,              /* becomes a hole; DATA of these blocks before this item is void */
  ITEM_RETIRE = 3,             /* DATA of these blocks before this item is void, the map stays */
  ITEM_CREATE = 4,             /* followed by struct format_item_disk */
  ITEM_RENAME = 5,             /* followed by struct format_item_disk (size and uuid as they are) */
  ITEM_RESIZE = 6,             /* length: the new size in bytes; blocks beyond it, and beyond the
                                  size before, become holes; DATA beyond it is void */
  ITEM_DELETE = 7,             /* the disk is dying: no name, size 0 as for RESIZE */
  ITEM_FORGET = 8,             /* a dying disk has no extents left: it is gone */
  ITEM_DATA = 9,               /* `length` blocks from `block` on: the next ones of the record's
                                  data.  Last of a record's items. */
  /* Followed by struct format_item_request; the disk remembers its id (format_disk). */
  ITEM_COLLAPSE = 10,          /* [block, block + length) of disk goes; what lies behind it moves down
                                  to block, and the disk is so much smaller */
  ITEM_INSERT = 11,            /* what lies from block on moves up by length, and the disk is so much
                                  larger; a hole is left */
  /* Both: DATA of blocks from `block` on before this item is void. */
  ITEM_CLONE = 12,             /* followed by struct format_item_clone: [block, block + length)
                                  becomes what the source's map has in its range: its written
                                  extents, and holes for all else; DATA of these blocks before this
                                  item is void */
};

struct format_item {           /* 40 bytes; all items are multiples of 8 */
  le16 kind;
  le16 bytes;                  /* of the item with what follows */
  le32 flags;                  /* MAP: 1 unwritten, 2 written */
  le64 disk;
  le64 block;
  le64 length;
  le64 place;
};
struct format_item_disk {
  uint8_t uuid[16];
  le64 size;
  le64 created;
  le16 name_length;
  uint8_t name[DISK_NAME_MAX + 7];   /* zero-filled; the item ends at the next multiple of 8 after
                                        the name */
};

struct format_item_request {
  uint8_t id[REQUEST_ID_BYTES];    /* zeros: none */
};

struct format_item_clone {
  le64 disk;                   /* the source */
  le64 block;                  /* the first one there */
  uint8_t request[REQUEST_ID_BYTES];   /* zeros: none */
};

_Static_assert (sizeof (struct format_superblock) <= BLOCK_SIZE, "superblock fits a block");
_Static_assert (sizeof (struct format_node) == 64, "node header");
_Static_assert (sizeof (struct format_record) == 96, "record header");
_Static_assert (sizeof (struct format_item) == 40, "item");
_Static_assert (sizeof (struct format_disk) <= BLOCK_SIZE, "disk node fits a block");
_Static_assert (__builtin_offsetof (struct format_disk, request_ids) == 392, "disk node");
_Static_assert (__builtin_offsetof (struct format_disk, data_end) == 648, "disk node");
_Static_assert (LEAF_ENTRIES == 252 && INNER_ENTRIES == 168, "entries per node");

/* --- checks and seals (format.c); pure functions --- */

uint64_t format_node_checksum (const void *image);
/* Fills in kind, level, count, identity, place, and last the checksum of a whole image. */
void format_node_seal (void *image, uint32_t kind, unsigned level, unsigned count,
                       const struct format_node_identity *identity, uint64_t place);
/* NULL if the image is a valid node of this kind (0: any), owner, uuid, place and checksum (0:
 * any); else what is wrong, a static text such as "checksum is wrong". */
const char *format_node_check (const void *image, uint32_t kind, const uint8_t *uuid,
                               uint64_t owner, uint64_t place, uint64_t expected_checksum);
void format_superblock_seal (struct format_superblock *superblock, uint64_t place);
/* NULL if valid as a superblock at this place (features are not judged); else what is wrong. */
const char *format_superblock_check (const struct format_superblock *superblock, uint64_t place);
bool format_name_is_valid (const char *name, const char **why);

#endif
