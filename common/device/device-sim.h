/* SPDX-License-Identifier: BSD-2-Clause */
/* device-sim.h - the simulated device of the tests: memory, faults, and crashes, all from one seed.
 *
 * Fault model.  Sectors of 512 bytes are atomic, nothing larger.  A write takes effect for reads
 * when it completes (the order in which submitted I/O completes is the caller's choice, or random
 * by seed).  Flush: all writes completed before its submission are durable when it completes.
 *   kill:   completed I/O stays; each io in flight: not done, done, or torn by sectors, by seed.
 *   power:  the state at the last completed flush, plus for each later completed or in-flight
 *           write, by seed: lost, whole, or torn by sectors; in any order.
 * A discard makes its blocks zeros, or garbage (by seed), when it completes; by power cut also
 * lost.
 *
 * I/O counts as in flight from the kick on; who forgets to kick waits for ever, as on a real
 * device.  Two changes (writes, discards) of one block in flight, and memory that changes under a
 * write, are failed CHECKs.  A write that fails with -EIO is done, not done, or torn.  A file that
 * has grown may be shorter again after a power cut.
 *
 * The image outlives the device: sim_image_create, then any number of sim_device_create / crash /
 * create on it.  One thread only, no locks, except with is_threaded: then there is a mutex, and what
 * is in flight ends by itself, in any order, when its queue is polled, or polled again.
 */
#ifndef LACUNA_DEVICE_SIM_H
#define LACUNA_DEVICE_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"

struct sim_image;

struct sim_options {
  uint64_t seed;
  uint64_t length;            /* blocks it has at first */
  uint64_t length_max;        /* it may grow to (a "file"); == length: a "block device" */
  bool is_threaded;
};

struct sim_image *sim_image_create (const struct sim_options *options);
void sim_image_destroy (struct sim_image *image);
/* A second image with the same content, durable or not, and the same io in flight, which nobody
 * waits for: sim_crash decides on them.  SEED: its own fate.  Cheap: the pages are shared until one
 * of them changes. */
struct sim_image *sim_image_clone (struct sim_image *image, uint64_t seed);
/* Of all that a power cut would decide from: equal for images of which it can leave the same. */
uint64_t sim_image_hash (struct sim_image *image);
/* Whether a power cut changes nothing. */
bool sim_image_is_durable (const struct sim_image *image);

/* A device over the image; one at a time. */
struct device *sim_device_create (struct sim_image *image);

/* --- running --- */
/* I/O in flight on all queues: how many, and each by index (order of submission).  The simulator
 * completes them one at a time, in the order it likes; completion is only recorded here, the
 * queue's poll calls `done`. */
unsigned sim_in_flight (struct sim_image *image);
const struct io *sim_io (struct sim_image *image, unsigned index);
void sim_complete (struct sim_image *image, unsigned index);
/* queue_wait on a simulated queue completes a random one itself, so that code that blocks
 * (store_open) runs too. */

/* --- faults --- */
/* The N-th io of this kind from now on (0: the next) fails with ERROR; `forever`: all from then
 * on. */
void sim_fail (struct sim_image *image, enum io_kind kind, uint64_t n, int error, bool forever);
/* Fails every io that touches [place, place + length) of this kind; length 0 clears. */
void sim_fail_range (struct sim_image *image, enum io_kind kind, uint64_t place, uint64_t length,
                     int error);
/* All faults off, also sim_stop_after and sim_set_host_free. */
void sim_heal (struct sim_image *image);
/* From the N-th io on, everything fails with -ECANCELED and changes nothing: the process is dying.
 * UINT64_MAX: off.  Then sim_crash, which switches it off. */
void sim_stop_after (struct sim_image *image, uint64_t n);
bool sim_is_stopped (struct sim_image *image);
/* The host's file system is full: growing, and first writes to blocks never written, fail with
 * -ENOSPC when fewer than this many blocks are left. */
void sim_set_host_free (struct sim_image *image, uint64_t blocks);

/* --- crashes --- */
enum sim_crash_kind { SIM_KILL, SIM_POWER };
/* Ends the device without completing anything (io in flight are dropped as the fault model says;
 * their memory is not touched any more). The caller has abandoned the store, or does it afterwards:
 * queues may be destroyed and the device closed, with I/O in flight, before it or after it. */
void sim_crash (struct sim_image *image, enum sim_crash_kind kind);

/* --- looking --- */
void sim_peek (struct sim_image *image, uint64_t place, void *block);
void sim_poke (struct sim_image *image, uint64_t place, const void *block);
struct sim_counts {
  uint64_t reads, writes, flushes, discards;
  uint64_t blocks_read, blocks_written, blocks_discarded, blocks_allocated;
  uint64_t failed;            /* by sim_fail */
};
void sim_get_counts (struct sim_image *image, struct sim_counts *counts);
/* Called at submission and at completion of each io (trace lints); NULL: off. */
void sim_set_trace (struct sim_image *image,
                    void (*trace) (void *arg, const struct io *io, bool is_completion), void *arg);

#endif
