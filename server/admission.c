/* SPDX-License-Identifier: BSD-2-Clause */
/* admission.c - how many may come in.
 *
 * Whoever is in the handshake has shown nothing yet, and costs a connection all the same: so there
 * are few of them, and of each peer fewer still, lest one keep all others out.
 */
#include <string.h>

#include "base/check.h"
#include "server.h"

void
admission_open (struct server *server)
{
  pthread_mutex_init (&server->admission.mutex, NULL);
}

void
admission_close (struct server *server)
{
  pthread_mutex_destroy (&server->admission.mutex);
}

/* Who counts as one peer: an IPv4 address, half an IPv6 address, a user of this host. */
static struct peer
peer_of (const struct identity *identity)
{
  static const uint8_t mapped[12] = { [10] = 0xff, 0xff };
  struct peer peer = { .kind = PEER_OTHER };

  if (identity->has_address) {
    peer.kind = PEER_ADDRESS;
    memcpy (peer.key, identity->address,
            memcmp (identity->address, mapped, sizeof mapped) == 0 ? 16 : 8);
  } else if (identity->has_uid) {
    peer.kind = PEER_USER;
    memcpy (peer.key, &identity->uid, sizeof identity->uid);
  }
  return peer;
}

/* The peer's place in the table, or a free one; NULL: there is none. */
static struct peer_count *
find_peer (struct admission *admission, const struct peer *peer)
{
  struct peer_count *unused = NULL;

  for (unsigned i = 0; i < ARRAY_COUNT (admission->peers); i++) {
    struct peer_count *at = &admission->peers[i];

    if (at->count == 0)
      unused = at;
    else if (memcmp (&at->peer, peer, sizeof *peer) == 0)
      return at;
  }
  if (unused)
    unused->peer = *peer;
  return unused;
}

bool
admission_enter (struct server *server, const struct identity *identity)
{
  struct admission *admission = &server->admission;
  struct peer peer = peer_of (identity);
  struct peer_count *count;
  bool is_admitted;

  pthread_mutex_lock (&admission->mutex);
  count = find_peer (admission, &peer);
  is_admitted = count && count->count < HANDSHAKES_PER_PEER_MAX
                && admission->connections < CONNECTIONS_MAX;
  if (is_admitted) {
    count->count++;
    admission->connections++;
  }
  pthread_mutex_unlock (&admission->mutex);
  return is_admitted;
}

void
admission_end_handshake (struct server *server, const struct identity *identity)
{
  struct admission *admission = &server->admission;
  struct peer peer = peer_of (identity);
  struct peer_count *count;

  pthread_mutex_lock (&admission->mutex);
  count = find_peer (admission, &peer);
  CHECK (count && count->count > 0);
  count->count--;
  pthread_mutex_unlock (&admission->mutex);
}

void
admission_leave (struct server *server)
{
  pthread_mutex_lock (&server->admission.mutex);
  server->admission.connections--;
  pthread_mutex_unlock (&server->admission.mutex);
}

unsigned
admission_count (struct server *server)
{
  unsigned count;

  pthread_mutex_lock (&server->admission.mutex);
  count = server->admission.connections;
  pthread_mutex_unlock (&server->admission.mutex);
  return count;
}
