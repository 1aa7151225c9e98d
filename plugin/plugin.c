/* SPDX-License-Identifier: BSD-2-Clause */
/* plugin.c - parameters, the store, and the table of callbacks; see plugin.h. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "plugin.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

struct plugin plugin;

/* --- messages --- */

/* What the engine has to say goes where nbdkit's messages go: stderr or syslog. */
static void
on_log (enum log_level level, const char *message)
{
  if (level <= LOG_WARNING)
    nbdkit_error ("%s%s", level == LOG_WARNING ? "warning: " : "", message);
  else
    nbdkit_debug ("%s", message);
}

/* --- parameters --- */

static void
lacuna_load (void)
{
  log_set_sink (on_log);
}

static void
lacuna_unload (void)
{
  free (plugin.path);
  free (plugin.arena);
  log_set_sink (NULL);
}

static int
config_path (char **path, const char *value)
{
  *path = nbdkit_absolute_path (value);
  return *path != NULL ? 0 : -1;
}

static int
config_cache (const char *value)
{
  char least[TEXT_SIZE_MAX];
  const char *why;

  if (text_parse_size (value, &plugin.cache_bytes, &why) != 0) {
    nbdkit_error ("cache=%s: %s", value, why);
    return -1;
  }
  if (plugin.cache_bytes < STORE_CACHE_MIN) {
    nbdkit_error ("cache=%s: at least %s are needed", value,
                  text_exact_size (STORE_CACHE_MIN, least));
    return -1;
  }
  return 0;
}

static int
config_arena (const char *value)
{
  if (strcmp (value, "off") != 0)
    return config_path (&plugin.arena, value);
  plugin.arena = strdup (value);
  if (plugin.arena == NULL)
    nbdkit_error ("arena=%s: %m", value);
  return plugin.arena != NULL ? 0 : -1;
}

static int
lacuna_config (const char *key, const char *value)
{
  bool is_store = strcmp (key, "store") == 0, is_disk = strcmp (key, "disk") == 0;
  bool is_cache = strcmp (key, "cache") == 0, is_arena = strcmp (key, "arena") == 0;

  if (!is_store && !is_disk && !is_cache && !is_arena) {
    nbdkit_error ("unknown parameter '%s'; there are store, disk, cache and arena", key);
    return -1;
  }
  if (*value == '\0') {
    nbdkit_error ("%s=: the value is empty", key);
    return -1;
  }
  if ((is_store && plugin.path != NULL) || (is_disk && plugin.disk != NULL)
      || (is_cache && plugin.cache_bytes != 0) || (is_arena && plugin.arena != NULL)) {
    nbdkit_error ("%s=%s: the parameter was given before", key, value);
    return -1;
  }
  if (is_store)
    return config_path (&plugin.path, value);
  if (is_cache)
    return config_cache (value);
  if (is_arena)
    return config_arena (value);
  plugin.disk = value;             /* it lives as long as the plugin */
  return 0;
}

static int
lacuna_config_complete (void)
{
  if (plugin.path == NULL) {
    nbdkit_error ("which store?  nbdkit lacuna STORE");
    return -1;
  }
  return 0;
}

static const char config_help[] =
  "[store=]STORE      (required) the store, a file or a block device; lacuna init\n"
  "                   makes one.  The export name picks the disk.\n"
  "disk=NAME          the disk of clients that name none (default: the only disk).\n"
  "cache=SIZE         memory for the cache (default 256M, at least 80M).\n"
  "arena=PATH|off     where that memory lies (default: a file in /dev/shm).";

static void
lacuna_dump_plugin (void)
{
  char size[TEXT_SIZE_MAX];

  printf ("lacuna_version=%s\n", PACKAGE_VERSION);
  printf ("lacuna_format_version=%d\n", FORMAT_VERSION);
  printf ("lacuna_incompat_features=0x%" PRIx64 "\n", FEATURE_INCOMPAT_KNOWN);
  printf ("lacuna_ro_compat_features=0x%" PRIx64 "\n", FEATURE_RO_COMPAT_KNOWN);
  printf ("lacuna_block_size=%d\n", (int) BLOCK_SIZE);
  printf ("lacuna_request_max=%s\n", text_exact_size (STORE_REQUEST_MAX, size));
  printf ("lacuna_cache_default=%s\n", text_exact_size (STORE_CACHE_DEFAULT, size));
  printf ("lacuna_cache_min=%s\n", text_exact_size (STORE_CACHE_MIN, size));
  printf ("lacuna_features=arena control extents fast_zero fua multi_conn resize trim\n");
}

/* --- the store --- */

static struct store_options
store_options (void)
{
  return (struct store_options) {
    .path = plugin.path,
    .arena_path = plugin.arena,
    .cache_bytes = plugin.cache_bytes,
    .is_read_only = plugin.is_read_only,
    .lock_wait_ms = STORE_LOCK_WAIT_MS,
  };
}

static void
store_error (int error, char *message)
{
  nbdkit_error ("%s: %s", plugin.path, message != NULL ? message : strerror (-error));
  free (message);
}

/* What can only be read is served read-only, as nbdkit's own plugins do. */
static bool
can_only_be_read (const char *path)
{
  int fd = open (path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

  if (fd == -1)
    return errno == EACCES || errno == EROFS || errno == EPERM;
  close (fd);
  return false;
}

/* Before the fork: everything that can be known to be wrong is said here, where the user sees
 * it. */
static int
lacuna_get_ready (void)
{
  struct store_options options;
  struct disk_info *disks = NULL;
  size_t count = 0;
  char *message = NULL;
  bool is_found = plugin.disk == NULL;
  int error;

  plugin.is_read_only = can_only_be_read (plugin.path);
  options = store_options ();
  error = store_look (&options, &disks, &count, &message);
  if (error != 0) {
    store_error (error, message);
    return -1;
  }
  for (size_t i = 0; i < count && !is_found; i++)
    is_found = strcmp (disks[i].name, plugin.disk) == 0;
  free (disks);
  if (!is_found) {
    nbdkit_error ("%s: %s: there is no disk of this name", plugin.path, plugin.disk);
    return -1;
  }
  return 0;
}

static void
close_store (void)
{
  char *message = NULL;
  int error = store_close (plugin.store, &message);

  if (error != 0)
    store_error (error, message);
  else
    free (message);
  plugin.store = NULL;
}

/* 0, or -1 after a message, with nothing left open. */
static int
begin (void)
{
  const struct store_options options = store_options ();
  char *message = NULL;
  int error = store_open (&options, &plugin.store, &message);

  if (error != 0) {
    store_error (error, message);
    return -1;
  }
  plugin.bridge = bridge_create (plugin.store);
  if (plugin.bridge != NULL) {
    plugin.thread = own_thread_start (plugin.store);
    if (plugin.thread != NULL)
      return 0;
    error = errno;
    bridge_destroy (plugin.bridge);
    errno = error;
  }
  nbdkit_error ("%s: its threads cannot be started: %m", plugin.path);
  close_store ();
  return -1;
}

/* Signals are nbdkit's: its threads get them, none of ours. */
static int
lacuna_after_fork (void)
{
  sigset_t all, old;
  int result;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  result = begin ();
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  return result;
}

/* No request runs any more, and none will. */
static void
lacuna_cleanup (void)
{
  connection_close_all ();
  own_thread_stop (plugin.thread);
  bridge_destroy (plugin.bridge);
  close_store ();
}

/* --- the table --- */

/* No .preconnect: a client that may come at all may come to any disk, and whether there is one for
 * it is known when it names it.  No .thread_model: it is always the same. */
static struct nbdkit_plugin callbacks = {
  .name = "lacuna",
  .longname = "nbdkit lacuna plugin",
  .version = PACKAGE_VERSION,
  .description = "Thin disks from a Lacuna store, which is also what lacuna serve serves.",
  .load = lacuna_load,
  .unload = lacuna_unload,
  .config = lacuna_config,
  .config_complete = lacuna_config_complete,
  .config_help = config_help,
  .magic_config_key = "store",
  .dump_plugin = lacuna_dump_plugin,
  .get_ready = lacuna_get_ready,
  .after_fork = lacuna_after_fork,
  .cleanup = lacuna_cleanup,

  .list_exports = connection_list,
  .default_export = connection_default,
  .open = connection_open,
  .close = connection_close,
  .export_description = connection_description,
  .get_size = connection_size,
  .block_size = connection_block_size,
  .can_write = connection_can_write,
  .can_flush = connection_yes,
  .can_trim = connection_can_write,
  .can_zero = connection_can_write,
  .can_fast_zero = connection_can_write,
  .can_fua = connection_can_fua,
  .can_multi_conn = connection_yes,
  .can_extents = connection_yes,
  .can_cache = connection_can_cache,
  .is_rotational = connection_no,

  .pread = data_pread,
  .pwrite = data_pwrite,
  .flush = data_flush,
  .trim = data_trim,
  .zero = data_zero,
  .extents = data_extents,
  .cache = data_cache,
};

NBDKIT_REGISTER_PLUGIN (callbacks)
