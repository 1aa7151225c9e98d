/* SPDX-License-Identifier: BSD-2-Clause */
/* roles.c - which row of the tables stands for what in the engine: kinds of requests, ops by their
 * names, and the functions that lock ranges, put frames into the cache or take them out, or change
 * maps.
 *
 * tests/test-tables.sh looks these up in the engine's sources and fails where one is missing here,
 * so that nothing new comes without a row in tables.c, or a reason why it needs none.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "explorer.h"

struct role {
  const char *what;
  const char *who;
  const char *rows;             /* of tables.c; or NULL, and WHY */
  const char *why;
};

static const struct role roles[] = {
  { "request", "REQUEST_READ", "read read-ahead", NULL },
  { "request", "REQUEST_WRITE", "write partial-write failed-write", NULL },
  { "request", "REQUEST_TRIM", "trim trim-edge", NULL },
  { "request", "REQUEST_WRITE_ZEROES", "zeroes zeroes-kept zeroes-edge", NULL },
  { "request", "REQUEST_CACHE", "cache", NULL },
  { "request", "REQUEST_BLOCK_STATUS", "status", NULL },
  { "request", "REQUEST_FLUSH", NULL, "looks at no map; race 4" },

  { "admin", "ADMIN_CREATE", NULL, "a disk that nobody has open yet" },
  { "admin", "ADMIN_RESIZE", "shrink", NULL },
  { "admin", "ADMIN_RENAME", NULL, "changes a name" },
  { "admin", "ADMIN_DELETE", "delete", NULL },
  { "admin", "ADMIN_SYNC", "write-back", NULL },
  { "admin", "ADMIN_COLLAPSE", "collapse", NULL },
  { "admin", "ADMIN_INSERT", "insert", NULL },
  { "admin", "ADMIN_CLONE", "clone-source clone-target", NULL },

  { "op", "read", "read", NULL },
  { "op", "write", "write partial-write failed-write", NULL },
  { "op", "trim", "trim trim-edge", NULL },
  { "op", "write-zeroes", "zeroes zeroes-kept zeroes-edge", NULL },
  { "op", "flush", NULL, "looks at no map; race 4" },
  { "op", "cache", "cache read-ahead", NULL },
  { "op", "block-status", "status", NULL },
  { "op", "admin", "shrink delete collapse insert clone-source clone-target", NULL },
  { "op", "commit", NULL, "takes frames by themselves, and no places; race 4" },
  { "op", "keeper", "write-back", NULL },
  { "op", "keeper-commit", NULL, "joins a commit" },
  { "op", "keeper-discard", NULL, "has no disk's blocks; the places that are reused in all rows" },

  { "site", "fill.c:fill_block", "read read-ahead cache partial-write", NULL },
  { "site", "keeper.c:keeper_free_dying", "delete", NULL },
  { "site", "op-admin.c:admin_range", "shrink delete", NULL },
  { "site", "op-admin.c:admin_apply", "shrink delete", NULL },
  { "site", "op-admin.c:admin_clear", "shrink", NULL },
  { "site", "op-clone.c:clone_lock", "clone-source clone-target", NULL },
  { "site", "op-clone.c:clone_upgrade", "clone-target", NULL },
  { "site", "op-clone.c:clone_log", "clone-target", NULL },
  { "site", "op-clone.c:clone_clear", "clone-target", NULL },
  { "site", "op-clone.c:clone_map", "clone-target", NULL },
  { "site", "op-read.c:read_window", "read", NULL },
  { "site", "op-read.c:cache_window", "cache read-ahead", NULL },
  { "site", "op-shift.c:shift_quiesce", "collapse insert", NULL },
  { "site", "op-shift.c:shift_upgrade", "collapse insert", NULL },
  { "site", "op-shift.c:shift_log", "collapse insert", NULL },
  { "site", "op-shift.c:shift_clear", "collapse insert", NULL },
  { "site", "op-shift.c:shift_move", "collapse insert", NULL },
  { "site", "op-status.c:status_lock", "status", NULL },
  { "site", "op-write.c:write_lock", "write partial-write", NULL },
  { "site", "op-write.c:write_merge", "partial-write", NULL },
  { "site", "op-write.c:write_hold_hole", "partial-write", NULL },
  { "site", "op-write.c:write_publish_blocks", "write", NULL },
  { "site", "op-zero.c:zero_edge_lock", "zeroes-edge", NULL },
  { "site", "op-zero.c:zero_lock", "trim zeroes zeroes-kept", NULL },
  { "site", "op-zero.c:zero_drop", "trim zeroes zeroes-kept", NULL },
  { "site", "op-zero.c:zero_deallocate", "trim zeroes", NULL },
  { "site", "op-zero.c:zero_set_unwritten", "zeroes-kept", NULL },
  { "site", "op-zero.c:zero_unshare", "zeroes-kept", NULL },
  { "site", "writeback.c:writeback_lock", "write-back", NULL },
  { "site", "writeback.c:writeback_lock_more", "write-back", NULL },
  { "site", "writeback.c:writeback_publish_piece", "write-back", NULL },
  { "site", "recovery.c:recovery_clear_beyond", NULL, "at the opening nobody else is there" },
  { "site", "recovery.c:recovery_adopt", NULL, "at the opening nobody else is there" },
  { "site", "replay.c:replay_clone_map", NULL, "at the opening nobody else is there" },
  { "site", "replay.c:replay_map", NULL, "at the opening nobody else is there" },
  { "site", "replay.c:replay_unmap", NULL, "at the opening nobody else is there" },
  { "site", "replay.c:replay_shift", NULL, "at the opening nobody else is there" },
  { "site", "store.c:store_free", NULL, "at the end nobody else is there" },
};

/* Each of ROWS, words, must be a row of the tables. */
static bool
rows_exist (const struct role *role)
{
  char rows[128], *state = NULL;
  bool are_there = true;

  snprintf (rows, sizeof rows, "%s", role->rows);
  for (char *row = strtok_r (rows, " ", &state); row != NULL; row = strtok_r (NULL, " ", &state))
    if (!tables_has_row (row)) {
      printf ("FAIL %s %s: the tables have no row %s\n", role->what, role->who, row);
      are_there = false;
    }
  return are_there;
}

bool
roles_print (void)
{
  bool is_ok = true;

  for (unsigned i = 0; i < ARRAY_COUNT (roles); i++) {
    const struct role *role = &roles[i];

    printf ("%s %s %s%s\n", role->what, role->who, role->rows != NULL ? "" : "none: ",
            role->rows != NULL ? role->rows : role->why);
    is_ok &= role->rows == NULL || rows_exist (role);
  }
  return is_ok;
}
