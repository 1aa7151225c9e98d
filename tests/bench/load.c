/* SPDX-License-Identifier: BSD-2-Clause */
/* load.c - puts load on an NBD server, and tells in one line of JSON how it did.
 *
 *   load [options] read | write | trim | zeroes | status | churn
 *
 * It knows nothing of the server but the protocol.  `churn' trims a piece and writes it again;
 * `status' walks from extent to extent as `qemu-img map' does.  Times are taken once per batch of
 * requests or replies.  See client.h for what is done with the data.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client.h"

#define CONNECTIONS_MAX 1024

static const char usage[]
  = "load [options] read | write | trim | zeroes | status | churn\n"
    "  -u PATH | -H HOST -p PORT   where the server is     -e NAME   the export\n"
    "  -c N  connections           -q N  requests in flight on each\n"
    "  -b BYTES  of a request      -o OFFSET -l LENGTH  the range  -s BYTES  from one to the next\n"
    "  -t SECONDS | -n REQUESTS    how long                -w SECONDS  before that, not counted\n"
    "  -r N  requests per second at most                   -F N  a FLUSH after every N writes\n"
    "  --sequential --fua --no-hole --one --structured --zeros --final-flush --seed N\n"
    "  --tls   TLS 1.3, one connection\n";

struct settings {
  const char *work;
  uint16_t command, flags;
  bool is_churn, is_sequential, has_final_flush;
  unsigned connections, depth, flush_every;
  uint64_t bytes, offset, length, stride, ops, rate, seed;
  double seconds, warm_seconds;
  struct client_options client;
};

/* Latencies: 64 classes for each power of two of nanoseconds. */
#define CLASS_BITS 6
#define CLASSES (64 << CLASS_BITS)

struct load;

struct stream {                     /* a connection, and what it is about to do */
  struct load *load;
  struct client client;
  uint64_t since_flush;             /* writes queued since the last FLUSH */
  uint64_t churn_offset;
  bool churn_writes;                /* the piece was trimmed */
  bool is_flushing;                 /* a FLUSH is on its way */
  bool wants_output;
};

struct load {
  struct settings settings;
  struct stream *streams;
  int epoll_fd;
  uint64_t random;
  uint64_t next;                    /* sequential: number of the next piece; status: offset */
  uint64_t issued;                  /* requests, FLUSHes apart */
  uint64_t now, start, measured_from, end_at, next_at;
  bool is_over;                     /* nothing more is to be issued */
  uint64_t ops, bytes, extents, ops_in_all, last_reply;
  uint64_t classes[CLASSES];
};

/* --- latencies --- */

static unsigned
latency_class (uint64_t ns)
{
  unsigned power;

  if (ns < 1 << CLASS_BITS)
    return (unsigned) ns;
  power = 63 - (unsigned) __builtin_clzll (ns) - CLASS_BITS;
  return ((power + 1) << CLASS_BITS) + (unsigned) (ns >> power) - (1 << CLASS_BITS);
}

/* In microseconds: what SHARE of the requests did not exceed. */
static double
latency_quantile (const struct load *load, double share)
{
  uint64_t wanted = (uint64_t) (share * (double) load->ops), seen = 0;

  for (unsigned i = 0; i < CLASSES; i++) {
    seen += load->classes[i];
    if (seen > wanted || (seen == load->ops && seen > 0)) {
      uint64_t power = i >> CLASS_BITS, low = i & ((1 << CLASS_BITS) - 1);

      if (power == 0)
        return (double) low / 1000;
      return (double) ((low + (1 << CLASS_BITS)) << (power - 1)) / 1000;
    }
  }
  return 0;
}

/* --- what to ask for --- */

static uint64_t
next_random (struct load *load)
{
  load->random ^= load->random << 13;
  load->random ^= load->random >> 7;
  load->random ^= load->random << 17;
  return load->random;
}

static uint64_t
next_offset (struct load *load)
{
  const struct settings *settings = &load->settings;
  uint64_t pieces = (settings->length - settings->bytes) / settings->stride + 1, piece;

  piece = settings->is_sequential ? load->next++ % pieces : next_random (load) % pieces;
  return settings->offset + piece * settings->stride;
}

/* Whether one more request is due, apart from the room for it. */
static bool
is_due (struct load *load)
{
  const struct settings *settings = &load->settings;

  if (load->is_over)
    return false;
  if (settings->ops != 0 ? load->issued >= settings->ops : load->now >= load->end_at) {
    load->is_over = true;
    return false;
  }
  if (settings->rate != 0) {
    if (load->now < load->next_at)
      return false;
    load->next_at += SECOND / settings->rate;
  }
  return true;
}

static void
queue_one (struct stream *stream, uint16_t command, uint16_t flags, uint64_t offset,
           uint64_t length)
{
  struct slot *slot = client_queue (&stream->client, command, flags, offset, (uint32_t) length);

  slot->queued_at = stream->load->now;
}

/* A walk: the next request begins where the answer to the last one ended. */
static void
queue_status (struct stream *stream)
{
  struct load *load = stream->load;
  const struct settings *settings = &load->settings;
  uint64_t end = settings->offset + settings->length;

  if (load->next >= end)
    load->next = settings->offset;
  queue_one (stream, NBD_CMD_BLOCK_STATUS, settings->flags, load->next,
             MIN (settings->bytes, end - load->next));
}

static void
queue_churn (struct stream *stream)
{
  const struct settings *settings = &stream->load->settings;

  if (!stream->churn_writes)
    stream->churn_offset = next_offset (stream->load);
  queue_one (stream, stream->churn_writes ? NBD_CMD_WRITE : NBD_CMD_TRIM, 0, stream->churn_offset,
             settings->bytes);
  stream->churn_writes = !stream->churn_writes;
}

/* Queues whatever this connection may ask for now.  Of writes with FLUSHes between them, those up to
 * the next FLUSH are in flight together, and it alone: it covers what was answered before it. */
static void
stream_issue (struct stream *stream)
{
  struct load *load = stream->load;
  const struct settings *settings = &load->settings;
  struct client *client = &stream->client;

  while (client->free_count > 0 && !stream->is_flushing) {
    if (settings->flush_every > 0 && stream->since_flush == settings->flush_every) {
      if (client_in_flight (client) > 0)
        return;
      queue_one (stream, NBD_CMD_FLUSH, 0, 0, 0);
      stream->since_flush = 0;
      stream->is_flushing = true;
      return;
    }
    if (settings->command == NBD_CMD_BLOCK_STATUS && client_in_flight (client) > 0)
      return;
    if (!is_due (load))
      return;
    if (settings->command == NBD_CMD_BLOCK_STATUS)
      queue_status (stream);
    else if (settings->is_churn)
      queue_churn (stream);
    else
      queue_one (stream, settings->command, settings->flags, next_offset (load), settings->bytes);
    load->issued++;
    stream->since_flush++;
  }
}

static void
on_reply (void *owner, struct slot *slot)
{
  struct stream *stream = owner;
  struct load *load = stream->load;

  if (load->settings.command == NBD_CMD_BLOCK_STATUS)
    load->next = slot->offset + slot->status_length;
  if (slot->command == NBD_CMD_FLUSH) {
    stream->is_flushing = false;
    return;
  }
  load->now = load->last_reply = stream->client.received_at;
  load->ops_in_all++;
  if (slot->queued_at < load->measured_from)
    return;
  load->ops++;
  load->bytes += slot->length;
  load->extents += slot->status_extents;
  load->classes[latency_class (load->now - slot->queued_at)]++;
}

/* --- the loop --- */

static void
stream_send (struct stream *stream)
{
  struct load *load = stream->load;
  bool is_full = !client_send (&stream->client);
  struct epoll_event event = { .events = EPOLLIN | (is_full ? EPOLLOUT : 0), .data.ptr = stream };

  if (is_full == stream->wants_output)
    return;
  stream->wants_output = is_full;
  if (epoll_ctl (load->epoll_fd, EPOLL_CTL_MOD, stream->client.fd, &event) < 0)
    client_die ("epoll_ctl: %s", strerror (errno));
}

/* Until something comes, or the next request is due. */
static unsigned
wait_for_streams (struct load *load, struct epoll_event *events, unsigned max)
{
  struct timespec timeout = { .tv_sec = 60 };
  int count;

  if (load->settings.rate != 0 && !load->is_over) {
    uint64_t left = load->next_at > load->now ? load->next_at - load->now : 0;

    timeout = (struct timespec) { (time_t) (left / SECOND), (long) (left % SECOND) };
  }
  count = epoll_pwait2 (load->epoll_fd, events, (int) max, &timeout, NULL);
  if (count < 0 && errno != EINTR)
    client_die ("epoll_wait: %s", strerror (errno));
  if (count == 0 && timeout.tv_sec == 60)
    client_die ("the server has not answered for 60 s");
  return count < 0 ? 0 : (unsigned) count;
}

static bool
is_busy (const struct load *load)
{
  for (unsigned i = 0; i < load->settings.connections; i++)
    if (client_in_flight (&load->streams[i].client) > 0)
      return true;
  return false;
}

static void
stream_turn (struct stream *stream)
{
  struct load *load = stream->load;

  client_receive (&stream->client, on_reply, stream);
  load->now = clock_ns ();
  stream_issue (stream);
  stream_send (stream);
}

static void
load_run (struct load *load)
{
  unsigned count = load->settings.connections;
  struct epoll_event events[64];

  for (unsigned i = 0; i < count; i++) {
    stream_issue (&load->streams[i]);
    stream_send (&load->streams[i]);
  }
  while (!load->is_over || is_busy (load)) {
    struct stream *only = &load->streams[0];

    /* A lone connection needs no epoll, but where it could wait for the wrong thing. */
    only->client.is_waiting = count == 1 && load->settings.rate == 0 && !only->wants_output;
    if (only->client.is_waiting) {
      stream_turn (only);
      continue;
    }
    for (unsigned i = wait_for_streams (load, events, 64); i > 0; i--)
      stream_turn (events[i - 1].data.ptr);
    load->now = clock_ns ();
    if (load->settings.rate != 0)
      for (unsigned i = 0; i < count; i++) {
        stream_issue (&load->streams[i]);
        stream_send (&load->streams[i]);
      }
  }
}

static void
final_flush (struct stream *stream)
{
  struct client *client = &stream->client;

  queue_one (stream, NBD_CMD_FLUSH, 0, 0, 0);
  client_send (client);
  client->is_waiting = true;
  while (client_in_flight (client) > 0)
    client_receive (client, on_reply, stream);
}

/* --- the result --- */

static double
cpu_seconds (void)
{
  struct rusage usage;

  getrusage (RUSAGE_SELF, &usage);
  return (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
report (const struct load *load, double cpu, double flush_seconds)
{
  double seconds = (double) (load->last_reply - load->measured_from) / (double) SECOND;
  uint64_t syscalls = 0;

  for (unsigned i = 0; i < load->settings.connections; i++)
    syscalls += load->streams[i].client.syscalls;
  printf ("{\"work\": \"%s\", \"requests\": %llu, \"bytes\": %llu, \"seconds\": %.6f, "
          "\"flush_seconds\": %.6f, \"requests_in_all\": %llu, \"extents\": %llu, "
          "\"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
          "\"max_us\": %.2f, \"client_cpu_us\": %.3f, \"client_syscalls\": %.3f}\n",
          load->settings.work, (unsigned long long) load->ops, (unsigned long long) load->bytes,
          seconds, flush_seconds, (unsigned long long) load->ops_in_all,
          (unsigned long long) load->extents, latency_quantile (load, 0.5),
          latency_quantile (load, 0.9), latency_quantile (load, 0.99),
          latency_quantile (load, 0.999), latency_quantile (load, 1),
          cpu * 1e6 / (double) MAX (load->ops_in_all, 1),
          (double) syscalls / (double) MAX (load->ops_in_all, 1));
}

/* --- options --- */

static uint64_t
parse_size (const char *text)
{
  char *end;
  uint64_t value = strtoull (text, &end, 10);

  switch (*end) {
  case 0: return value;
  case 'k': return value * KIB;
  case 'm': return value * MIB;
  case 'g': return value * GIB;
  }
  client_die ("what size is `%s'?", text);
}

static void
parse_work (struct settings *settings, const char *work)
{
  static const struct {
    const char *name;
    uint16_t command;
  } works[] = {
    { "read", NBD_CMD_READ }, { "write", NBD_CMD_WRITE }, { "trim", NBD_CMD_TRIM },
    { "zeroes", NBD_CMD_WRITE_ZEROES }, { "status", NBD_CMD_BLOCK_STATUS },
    { "churn", NBD_CMD_WRITE },
  };

  settings->work = work;
  settings->is_churn = strcmp (work, "churn") == 0;
  for (size_t i = 0; i < ARRAY_COUNT (works); i++)
    if (strcmp (work, works[i].name) == 0) {
      settings->command = works[i].command;
      return;
    }
  client_die ("what is `%s'?", work);
}

enum long_option {
  SEQUENTIAL = 256, FUA, NO_HOLE, ONE, STRUCTURED, ZEROS, FINAL_FLUSH, SEED, TLS
};

static const struct option long_options[] = {
  { "sequential", no_argument, NULL, SEQUENTIAL },
  { "fua", no_argument, NULL, FUA },
  { "no-hole", no_argument, NULL, NO_HOLE },
  { "one", no_argument, NULL, ONE },
  { "structured", no_argument, NULL, STRUCTURED },
  { "zeros", no_argument, NULL, ZEROS },
  { "final-flush", no_argument, NULL, FINAL_FLUSH },
  { "seed", required_argument, NULL, SEED },
  { "tls", no_argument, NULL, TLS },
  { NULL, 0, NULL, 0 },
};

static void
parse_option (struct settings *settings, int option)
{
  switch (option) {
  case 'u': settings->client.unix_path = optarg; return;
  case 'H': settings->client.host = optarg; return;
  case 'p': settings->client.port = optarg; return;
  case 'e': settings->client.export = optarg; return;
  case 'c': settings->connections = (unsigned) parse_size (optarg); return;
  case 'q': settings->depth = (unsigned) parse_size (optarg); return;
  case 'b': settings->bytes = parse_size (optarg); return;
  case 'o': settings->offset = parse_size (optarg); return;
  case 'l': settings->length = parse_size (optarg); return;
  case 's': settings->stride = parse_size (optarg); return;
  case 't': settings->seconds = atof (optarg); return;
  case 'w': settings->warm_seconds = atof (optarg); return;
  case 'n': settings->ops = parse_size (optarg); return;
  case 'r': settings->rate = parse_size (optarg); return;
  case 'F': settings->flush_every = (unsigned) parse_size (optarg); return;
  case SEQUENTIAL: settings->is_sequential = true; return;
  case FUA: settings->flags |= NBD_CMD_FLAG_FUA; return;
  case NO_HOLE: settings->flags |= NBD_CMD_FLAG_NO_HOLE; return;
  case ONE: settings->flags |= NBD_CMD_FLAG_REQ_ONE; return;
  case STRUCTURED: settings->client.wants_structured = true; return;
  case ZEROS: settings->client.may_read_zeros = true; return;
  case FINAL_FLUSH: settings->has_final_flush = true; return;
  case TLS: settings->client.wants_tls = true; return;
  case SEED: settings->seed = parse_size (optarg); return;
  }
  fputs (usage, stderr);
  exit (2);
}

static void
parse (struct settings *settings, int argc, char **argv)
{
  int option;

  *settings = (struct settings) {
    .connections = 1, .depth = 1, .bytes = 4 * KIB, .seconds = 1, .seed = 1,
    .client = { .export = "" },
  };
  while ((option = getopt_long (argc, argv, "u:H:p:e:c:q:b:o:l:s:t:w:n:r:F:", long_options, NULL))
         != -1)
    parse_option (settings, option);
  if (optind + 1 != argc || (!settings->client.unix_path && !settings->client.port)) {
    fputs (usage, stderr);
    exit (2);
  }
  parse_work (settings, argv[optind]);
  if (!settings->client.host)
    settings->client.host = "127.0.0.1";
  if (settings->stride == 0)
    settings->stride = settings->bytes;
  if (settings->connections < 1 || settings->connections > CONNECTIONS_MAX || settings->depth < 1
      || settings->depth > DEPTH_MAX)
    client_die ("up to %u connections, %u requests on each", CONNECTIONS_MAX, DEPTH_MAX);
  if (settings->client.wants_tls && settings->connections > 1)
    client_die ("with TLS there is one connection only");
  if (settings->bytes == 0 || settings->bytes > UINT32_MAX)
    client_die ("a request has up to 4 GiB less one byte");
  settings->client.depth = settings->depth;
  settings->client.request_bytes = settings->command == NBD_CMD_WRITE ? settings->bytes : 0;
  settings->client.wants_status = settings->command == NBD_CMD_BLOCK_STATUS;
}

static void
load_connect (struct load *load)
{
  struct settings *settings = &load->settings;
  uint64_t size;

  load->epoll_fd = epoll_create1 (EPOLL_CLOEXEC);
  load->streams = calloc (settings->connections, sizeof *load->streams);
  if (load->epoll_fd < 0 || !load->streams)
    client_die ("no memory");
  for (unsigned i = 0; i < settings->connections; i++) {
    struct stream *stream = &load->streams[i];
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = stream };

    stream->load = load;
    client_connect (&stream->client, &settings->client);
    if (epoll_ctl (load->epoll_fd, EPOLL_CTL_ADD, stream->client.fd, &event) < 0)
      client_die ("epoll_ctl: %s", strerror (errno));
  }
  size = load->streams[0].client.size;
  if (settings->length == 0 && size > settings->offset)
    settings->length = size - settings->offset;
  if (settings->command == NBD_CMD_BLOCK_STATUS)
    settings->bytes = MIN (settings->bytes, settings->length);
  if (settings->bytes > settings->length || settings->offset + settings->length > size)
    client_die ("the disk has only %llu bytes", (unsigned long long) size);
}

int
main (int argc, char **argv)
{
  static struct load load;
  double cpu, flush_seconds = 0;

  parse (&load.settings, argc, argv);
  load_connect (&load);
  load.random = (load.settings.seed + 1) * UINT64_C (0x9e3779b97f4a7c15);
  load.next = load.settings.command == NBD_CMD_BLOCK_STATUS ? load.settings.offset : 0;
  cpu = cpu_seconds ();
  load.now = load.start = load.next_at = load.last_reply = clock_ns ();
  load.measured_from = load.start + (uint64_t) (load.settings.warm_seconds * SECOND);
  load.end_at = load.measured_from + (uint64_t) (load.settings.seconds * SECOND);
  load_run (&load);
  cpu = cpu_seconds () - cpu;
  if (load.settings.has_final_flush) {
    uint64_t before = clock_ns ();

    final_flush (&load.streams[0]);
    flush_seconds = (double) (clock_ns () - before) / SECOND;
  }
  report (&load, cpu, flush_seconds);
  for (unsigned i = 0; i < load.settings.connections; i++)
    client_disconnect (&load.streams[i].client);
  free (load.streams);
  return 0;
}
