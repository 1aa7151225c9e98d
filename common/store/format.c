/* SPDX-License-Identifier: BSD-2-Clause */
/* format.c - seals and checks of what is on the device; see format.h.
 *
 * Whatever is read from a device may be anything: every function here that checks takes a whole
 * block and looks at nothing outside it.
 */
#include <stddef.h>
#include <string.h>

#include "base/checksum.h"
#include "store/format.h"

/* The largest group whose blocks a 32-bit number counts with room to spare. */
#define GROUP_BLOCKS_MAX (UINT64_C (1) << 30)
#define META_BLOCKS_MIN 16
#define HALF_BLOCKS_MIN 16

/* The checksum of a block in which the checksum itself, at OFFSET, counts as zero. */
static uint64_t
block_checksum (const void *block, size_t offset)
{
  uint8_t copy[BLOCK_SIZE];

  memcpy (copy, block, BLOCK_SIZE);
  memset (copy + offset, 0, sizeof (le64));
  return checksum (copy, BLOCK_SIZE, 0);
}

uint64_t
format_node_checksum (const void *image)
{
  return block_checksum (image, offsetof (struct format_node, checksum));
}

void
format_node_seal (void *image, uint32_t kind, unsigned level, unsigned count,
                  const struct format_node_identity *identity, uint64_t place)
{
  struct format_node *node = image;

  node->kind = to_le32 (kind);
  node->level = to_le16 (level);
  node->count = to_le16 (count);
  memcpy (node->uuid, identity->uuid, sizeof node->uuid);
  node->place = to_le64 (place);
  node->sequence = to_le64 (identity->sequence);
  node->owner = to_le64 (identity->owner);
  node->reserved = to_le64 (0);
  node->checksum = to_le64 (format_node_checksum (image));
}

const char *
format_node_check (const void *image, uint32_t kind, const uint8_t *uuid, uint64_t owner,
                   uint64_t place, uint64_t expected_checksum)
{
  const struct format_node *node = image;
  uint64_t sum = from_le64 (node->checksum);

  /* The checksum first: what the rest says counts only if it is what was written. */
  if (sum != format_node_checksum (image))
    return "checksum is wrong";
  if (memcmp (node->uuid, uuid, sizeof node->uuid) != 0)
    return "belongs to another store";
  if (from_le64 (node->place) != place)
    return "was written for another place";
  if (kind != 0 && from_le32 (node->kind) != kind)
    return "is of another kind";
  if (from_le64 (node->owner) != owner)
    return "belongs to another disk";
  if (expected_checksum != 0 && sum != expected_checksum)
    return "is not the version that is referred to";
  return NULL;
}

void
format_superblock_seal (struct format_superblock *superblock, uint64_t place)
{
  memcpy (superblock->magic, SUPERBLOCK_MAGIC, sizeof superblock->magic);
  superblock->place = to_le64 (place);
  superblock->checksum = to_le64 (
    block_checksum (superblock, offsetof (struct format_superblock, checksum)));
}

/* Whether the groups, and the journal in the first of them, can be as the superblock says
 * (lacuna-format(5), LIMITS): sealed numbers may still be nonsense that a bug or a forger wrote. */
static bool
geometry_is_possible (const struct format_superblock *superblock)
{
  uint64_t group = from_le64 (superblock->group_blocks);
  uint64_t meta = from_le64 (superblock->meta_blocks);
  uint64_t journal = from_le64 (superblock->journal_place);
  uint64_t half = from_le64 (superblock->journal_half_blocks);
  uint64_t capacity = from_le64 (superblock->capacity);

  if (! is_power_of_2 (group) || group > GROUP_BLOCKS_MAX)
    return false;
  if (! is_power_of_2 (meta) || meta < META_BLOCKS_MIN || meta >= group)
    return false;
  if (journal != meta || half < HALF_BLOCKS_MIN || half > (group - journal) / JOURNAL_HALVES)
    return false;
  return capacity == 0 || (capacity > journal + JOURNAL_HALVES * half && capacity <= PLACE_MAX);
}

const char *
format_superblock_check (const struct format_superblock *superblock, uint64_t place)
{
  if (memcmp (superblock->magic, SUPERBLOCK_MAGIC, sizeof superblock->magic) != 0)
    return "is no superblock";
  if (from_le64 (superblock->checksum)
      != block_checksum (superblock, offsetof (struct format_superblock, checksum)))
    return "checksum is wrong";
  if (from_le64 (superblock->place) != place)
    return "was written for another place";
  /* What a later version means by its fields is not ours to judge. */
  if (from_le32 (superblock->version) != FORMAT_VERSION)
    return NULL;
  if (! geometry_is_possible (superblock))
    return "geometry is impossible";
  if (from_le32 (superblock->journal_half) >= JOURNAL_HALVES)
    return "journal half is impossible";
  if (memchr (superblock->arena_path, 0, sizeof superblock->arena_path) == NULL)
    return "arena path has no end";
  return NULL;
}

/* Decodes one UTF-8 character: returns its bytes, 0 if it is malformed (overlong, surrogate,
 * beyond Unicode). */
static unsigned
utf8_decode (const uint8_t *s, uint32_t *character)
{
  static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
  unsigned bytes;

  if (s[0] < 0x80) {
    *character = s[0];
    return 1;
  }
  if (s[0] >= 0xf8 || s[0] < 0xc0)
    return 0;
  bytes = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
  *character = s[0] & (0x7f >> bytes);
  /* The NUL at the end is no continuation byte, so that this stops there. */
  for (unsigned i = 1; i < bytes; i++) {
    if ((s[i] & 0xc0) != 0x80)
      return 0;
    *character = *character << 6 | (s[i] & 0x3f);
  }
  if (*character < smallest[bytes] || *character > 0x10ffff
      || (*character >= 0xd800 && *character < 0xe000))
    return 0;
  return bytes;
}

/* Stores WHY unless the caller does not want to know. */
static bool
name_refuse (const char **why, const char *text)
{
  if (why)
    *why = text;
  return false;
}

bool
format_name_is_valid (const char *name, const char **why)
{
  const uint8_t *s = (const uint8_t *) name;
  uint32_t character;
  unsigned bytes;

  if (*s == 0)
    return name_refuse (why, "the name is empty");
  if (strnlen (name, DISK_NAME_MAX + 1) > DISK_NAME_MAX)
    return name_refuse (why, "the name is longer than 255 bytes");
  for (; *s; s += bytes) {
    bytes = utf8_decode (s, &character);
    if (bytes == 0)
      return name_refuse (why, "the name is not valid UTF-8");
    if (character < 0x20 || (character >= 0x7f && character < 0xa0))
      return name_refuse (why, "the name has control characters");
  }
  return true;
}
