/* SPDX-License-Identifier: BSD-2-Clause */
/* options.c - the command line of `lacuna serve`.
 *
 * Only what is wrong with an option by itself is judged here; a message and exit status 2 then.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "server.h"

#define THREADS_DEFAULT_MAX 16     /* beyond it another worker helps few */
#define THREADS_MAX 256

static const char usage[] =
  "usage: lacuna serve STORE [options]\n"
  "  -U, --unix PATH       listen on a Unix socket\n"
  "  -i, --ipaddr ADDR     listen on this address (default 127.0.0.1)\n"
  "  -p, --port N          on this port (default 10809; 0: any free one)\n"
  "      --vsock           listen on vsock, for virtual machines on this host\n"
  "  -s, --single          serve one client on stdin and stdout\n"
  "  -e, --export DISK     the disk of clients that name none (default: the only disk)\n"
  "  -r, --readonly        change nothing\n"
  "      --resize          clients may give their disks another size (NBD_CMD_RESIZE)\n"
  "  -P, --pidfile FILE    write the process id to FILE when ready\n"
  "  -t, --threads N       threads (default: one per CPU)\n"
  "      --cache SIZE      memory for the cache (default 256M, at least 80M)\n"
  "      --arena PATH|off  where that memory lies (default: a file in /dev/shm)\n"
  "      --tls off|on|require  refuse, offer or demand TLS (default off)\n"
  "      --tls-certificates DIR  with server-cert.pem, server-key.pem and ca-cert.pem\n"
  "      --tls-psk FILE    with lines of USER:KEY\n"
  "      --tls-verify-peer clients must have a certificate of ca-cert.pem\n"
  "      --access FILE     who may use which disk, and for what\n"
  "      --user USER       become this user as soon as the addresses are bound\n"
  "      --run CMD         run CMD with $uri and $unixsocket set, exit with its status\n";

enum { OPTION_VSOCK = 256, OPTION_CACHE, OPTION_ARENA, OPTION_RUN, OPTION_RESIZE,
       OPTION_TLS, OPTION_TLS_CERTIFICATES, OPTION_TLS_PSK, OPTION_TLS_VERIFY_PEER,
       OPTION_ACCESS, OPTION_USER,
       OPTION_HELP };

static const struct option long_options[] = {
  { "unix", required_argument, NULL, 'U' },
  { "ipaddr", required_argument, NULL, 'i' },
  { "port", required_argument, NULL, 'p' },
  { "vsock", no_argument, NULL, OPTION_VSOCK },
  { "single", no_argument, NULL, 's' },
  { "export", required_argument, NULL, 'e' },
  { "readonly", no_argument, NULL, 'r' },
  { "pidfile", required_argument, NULL, 'P' },
  { "threads", required_argument, NULL, 't' },
  { "cache", required_argument, NULL, OPTION_CACHE },
  { "arena", required_argument, NULL, OPTION_ARENA },
  { "resize", no_argument, NULL, OPTION_RESIZE },
  { "run", required_argument, NULL, OPTION_RUN },
  { "tls", required_argument, NULL, OPTION_TLS },
  { "tls-certificates", required_argument, NULL, OPTION_TLS_CERTIFICATES },
  { "tls-psk", required_argument, NULL, OPTION_TLS_PSK },
  { "tls-verify-peer", no_argument, NULL, OPTION_TLS_VERIFY_PEER },
  { "access", required_argument, NULL, OPTION_ACCESS },
  { "user", required_argument, NULL, OPTION_USER },
  { "help", no_argument, NULL, OPTION_HELP },
  { NULL, 0, NULL, 0 },
};

static unsigned
default_threads (void)
{
  long cpus = sysconf (_SC_NPROCESSORS_ONLN);

  return cpus < 1 ? 1 : (unsigned) MIN (cpus, THREADS_DEFAULT_MAX);
}

static bool
parse_threads (const char *text, struct serve_options *options)
{
  uint64_t threads;

  if (!text_parse_number (text, 1, THREADS_MAX, &threads)) {
    log_error ("--threads %s: not a number from 1 to %d", text, THREADS_MAX);
    return false;
  }
  options->threads = (unsigned) threads;
  return true;
}

static bool
parse_port (const char *text, struct serve_options *options)
{
  uint64_t port;

  if (!text_parse_number (text, 0, 65535, &port)) {
    log_error ("--port %s: not a port number from 0 to 65535", text);
    return false;
  }
  options->port = text;
  return true;
}

static bool
parse_cache (const char *text, struct serve_options *options)
{
  char least[TEXT_SIZE_MAX];
  const char *why;

  if (text_parse_size (text, &options->cache_bytes, &why) != 0) {
    log_error ("--cache %s: %s", text, why);
    return false;
  }
  if (options->cache_bytes < STORE_CACHE_MIN) {
    log_error ("--cache %s: at least %s are needed", text,
               text_exact_size (STORE_CACHE_MIN, least));
    return false;
  }
  return true;
}

static bool
parse_tls (const char *text, struct serve_options *options)
{
  static const char *const modes[] = {
    [TLS_OFF] = "off", [TLS_ON] = "on", [TLS_REQUIRE] = "require",
  };

  for (unsigned i = 0; i < ARRAY_COUNT (modes); i++)
    if (strcmp (text, modes[i]) == 0) {
      options->tls = (enum tls_mode) i;
      return true;
    }
  log_error ("--tls %s: not off, on or require", text);
  return false;
}

/* One option; false after a message. */
static bool
parse_one (int option, struct serve_options *options)
{
  switch (option) {
  case 'U':
    options->unix_path = optarg;
    return true;
  case 'i':
    options->address = optarg;
    return true;
  case 'p':
    return parse_port (optarg, options);
  case OPTION_VSOCK:
    options->is_vsock = true;
    return true;
  case 's':
    options->is_single = true;
    return true;
  case 'e':
    options->export = optarg;
    return true;
  case 'r':
    options->is_read_only = true;
    return true;
  case 'P':
    options->pidfile = optarg;
    return true;
  case 't':
    return parse_threads (optarg, options);
  case OPTION_CACHE:
    return parse_cache (optarg, options);
  case OPTION_ARENA:
    options->arena = optarg;
    return true;
  case OPTION_RESIZE:
    options->may_resize = true;
    return true;
  case OPTION_RUN:
    options->run = optarg;
    return true;
  case OPTION_TLS:
    return parse_tls (optarg, options);
  case OPTION_TLS_CERTIFICATES:
    options->tls_certificates = optarg;
    return true;
  case OPTION_TLS_PSK:
    options->tls_psk = optarg;
    return true;
  case OPTION_TLS_VERIFY_PEER:
    options->tls_verify_peer = true;
    return true;
  case OPTION_ACCESS:
    options->access = optarg;
    return true;
  case OPTION_USER:
    options->user = optarg;
    return true;
  default:
    /* getopt has said what. */
    return false;
  }
}

static bool
check_tls (const struct serve_options *options)
{
  if (options->tls != TLS_OFF && !options->tls_certificates && !options->tls_psk) {
    log_error ("--tls needs --tls-certificates or --tls-psk");
    return false;
  }
  if (options->tls == TLS_OFF && (options->tls_certificates || options->tls_psk)) {
    log_error ("--tls-certificates and --tls-psk need --tls on or --tls require");
    return false;
  }
  if (options->tls_verify_peer && !options->tls_certificates) {
    log_error ("--tls-verify-peer needs --tls-certificates");
    return false;
  }
  return true;
}

static bool
check_together (const struct serve_options *options)
{
  if (options->is_single && (options->unix_path || options->address || options->port
                             || options->is_vsock || options->run)) {
    log_error ("--single serves stdin and stdout: it cannot be combined with an address or --run");
    return false;
  }
  if (options->unix_path && *options->unix_path == '\0') {
    log_error ("--unix: the path is empty");
    return false;
  }
  if (options->export && *options->export == '\0') {
    log_error ("--export: the name is empty");
    return false;
  }
  if (options->user && options->run) {
    log_error ("--user: the command of --run would be another user's; run lacuna as that user");
    return false;
  }
  if (options->access && options->may_resize) {
    log_error ("--resize: with --access, its file says who may resize");
    return false;
  }
  return check_tls (options);
}

int
options_parse (int argc, char **argv, struct serve_options *options, bool *stop)
{
  int option;

  memset (options, 0, sizeof *options);
  options->threads = default_threads ();
  *stop = true;
  argv[0] = (char *) "lacuna: serve";   /* how getopt begins its messages */
  optind = 0;                      /* the options of all commands may have been parsed before */
  while ((option = getopt_long (argc, argv, "U:i:p:se:rP:t:", long_options, NULL)) != -1) {
    if (option == OPTION_HELP) {
      fputs (usage, stdout);
      return EXIT_SUCCESS;
    }
    if (!parse_one (option, options)) {
      if (option == '?')
        fputs (usage, stderr);
      return 2;
    }
  }
  if (argc - optind != 1) {
    log_error (argc == optind ? "serve: which store?" : "serve: one store only");
    fputs (usage, stderr);
    return 2;
  }
  options->store = argv[optind];
  if (!check_together (options))
    return 2;
  *stop = false;
  return 0;
}
