/* SPDX-License-Identifier: BSD-2-Clause */
/* op-admin.h - what the administrative ops share; for op-admin.c, and the files of those that have
 * steps of their own.
 *
 * All begin with ADMIN_LOCK, ADMIN_TAIL (JOURNAL_ITEM_MAX bytes of tail room: admin->tail_left) and
 * ADMIN_CHECK, where their ways part; all that have changed something end with ADMIN_COMMIT, which
 * makes it durable, ADMIN_COMMITTED, and ADMIN_END, which gives back whatever they hold.
 */
#ifndef LACUNA_OP_ADMIN_H
#define LACUNA_OP_ADMIN_H

#include "store/store-internal.h"

enum admin_stage {
  ADMIN_LOCK,
  ADMIN_TAIL,       /* tail room */
  ADMIN_CHECK,      /* is it possible? */
  ADMIN_RANGE,      /* shrink, delete: exclusive */
  ADMIN_CHANGE,
  ADMIN_COMMIT,     /* unlocks admin->range, too */
  ADMIN_COMMITTED,
  ADMIN_CLEAR,      /* shrink: what lies beyond the end */
  ADMIN_END,
  ADMIN_OWN,        /* from here on: of ops that have a file of their own */
};

/* op-shift.c: ADMIN_CHECK of a COLLAPSE or INSERT, and its own stages. */
enum op_next shift_check (struct admin *admin);
enum op_next shift_step (struct admin *admin);

/* op-clone.c: the same of a CLONE; and unlocking what it holds, also where it has failed, and where
 * it holds nothing. */
enum op_next clone_check (struct admin *admin);
enum op_next clone_step (struct admin *admin);
void clone_end (struct admin *admin, struct list *wake);

/* Of a CLONE. */
struct clone {
  struct disk *source, *target;
  uint64_t from, to, length;        /* blocks */
  struct range_request source_range, target_range;
  bool has_maps_lock;
  struct writeback_request writeback;
  uint64_t at;                      /* how far the present step has come, of length */
  uint64_t extents, runs;           /* that change: of the target's map, of the table */
};

/* Notes the failure; the op goes on with ADMIN_END.  The message is without the names of store and
 * disk. */
enum op_next admin_fail (struct admin *admin, int error, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));
/* The disk admin->name, to admin->disk; it stays, since nobody else changes the table while the
 * admin lock is held.  OP_DONE; or it failed: one that is damaged can only be deleted. */
enum op_next admin_find (struct admin *admin);
/* OP_DONE if DISK, which is admin->disk or a target, is not damaged; or it failed. */
enum op_next admin_check_whole (struct admin *admin, const struct disk *disk);

/* OP_DONE if there is room for MORE nodes; or it failed, or the op waits for it, and checks once
 * more. */
enum op_next admin_need_nodes (struct admin *admin, uint64_t more, enum node_use use);

/* Waits until what is dirty on DISK (NULL: on all) now is in its place, or REQUEST->error tells that
 * it could not be written; the op goes on with STAGE. */
enum op_next admin_write_back (struct admin *admin, struct writeback_request *request,
                               struct disk *disk, int stage);

/* Before admin->disk shrinks to admin->size: OP_DONE, or the failure if somebody was promised its
 * size.  From here on who asks for a size that stays is told the new one (disk_hold_size). */
enum op_next admin_check_shrink (struct admin *admin);

#endif
