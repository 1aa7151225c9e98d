/* SPDX-License-Identifier: BSD-2-Clause */
/* device-uring.c - a file or block device through io_uring; see device.h.
 *
 * A queue is a ring.  No more I/O is handed to the kernel than the ring has
 * entries, so that neither side of it can overflow; what comes on top waits in
 * a list.  The ring's own descriptor is readable when completions are there, so
 * there is no eventfd that would have to be read.
 *
 * SINGLE_ISSUER is not used: the thread that makes a queue need not be the one
 * that uses it, and the gain was not measurable beside the device.
 */
#define _GNU_SOURCE 1           /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#undef BLOCK_SIZE               /* linux/fs.h has one of its own */
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "device/device.h"

#define RING_ENTRIES 256
/* How often an io is started anew for -EAGAIN and the like. */
#define ATTEMPTS_MAX 1000
#define LOCK_RETRY_MS 10

struct uring_device {
  struct device device;
  int fd;
  char *path;
  bool is_block_device;
  bool is_read_only;
  _Atomic bool is_direct;
  _Atomic bool can_discard;
  pthread_mutex_t grow_mutex;
};

struct uring_queue {
  struct queue queue;
  struct io_uring ring;
  unsigned on_ring;             /* prepared or in the kernel */
  struct list waiting;          /* io for which the ring has no room */
};

static struct uring_device *
uring_device (struct device *d)
{
  return container_of (d, struct uring_device, device);
}

static struct uring_queue *
uring_queue (struct queue *q)
{
  return container_of (q, struct uring_queue, queue);
}

static void
sleep_ms (unsigned ms)
{
  struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

  nanosleep (&time, NULL);
}

/* --- starting I/O --- */

static void
prepare_transfer (struct io_uring_sqe *sqe, int fd, const struct io *io)
{
  uint64_t offset = io->place * BLOCK_SIZE + io->transferred;
  const struct iovec *segments = io->rest ? io->rest : io->segments;

  if (io->kind == IO_READ && io->segment_count == 1)
    io_uring_prep_read (sqe, fd, segments->iov_base, segments->iov_len, offset);
  else if (io->kind == IO_READ)
    io_uring_prep_readv (sqe, fd, segments, io->segment_count, offset);
  else if (io->segment_count == 1)
    io_uring_prep_write (sqe, fd, segments->iov_base, segments->iov_len, offset);
  else
    io_uring_prep_writev (sqe, fd, segments, io->segment_count, offset);
}

/* A block device has no discard in io_uring before Linux 6.12: it is done here
 * and now, on the keeper's thread, and completes as a no-op does. */
static void
prepare_discard (struct io_uring_sqe *sqe, struct uring_device *device, struct io *io)
{
  uint64_t range[2] = { io->place * BLOCK_SIZE, io->length * BLOCK_SIZE };

  if (!device->is_block_device) {
    io_uring_prep_fallocate (sqe, device->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             range[0], range[1]);
    return;
  }
  io->error = ioctl (device->fd, BLKDISCARD, range) < 0 ? -errno : 0;
  if (io->error == -EOPNOTSUPP)
    atomic_store (&device->can_discard, false);
  io_uring_prep_nop (sqe);
}

/* Puts IO on the ring, which has room. */
static void
io_start (struct uring_queue *queue, struct io *io)
{
  struct uring_device *device = uring_device (queue->queue.device);
  struct io_uring_sqe *sqe = io_uring_get_sqe (&queue->ring);

  CHECK (sqe);
  queue->on_ring++;
  switch (io->kind) {
  case IO_READ:
  case IO_WRITE:
    prepare_transfer (sqe, device->fd, io);
    break;
  case IO_FLUSH:
    io_uring_prep_fsync (sqe, device->fd, IORING_FSYNC_DATASYNC);
    break;
  case IO_DISCARD:
    prepare_discard (sqe, device, io);
    break;
  }
  io_uring_sqe_set_data (sqe, io);
}

static void
io_start_or_wait (struct uring_queue *queue, struct io *io)
{
  if (queue->on_ring < RING_ENTRIES)
    io_start (queue, io);
  else
    list_append (&queue->waiting, &io->link);
}

static void
submit (struct queue *q, struct io *io)
{
  CHECK (io->done && (io->kind == IO_FLUSH) == (io->length == 0));
  if (io->kind == IO_READ || io->kind == IO_WRITE)
    CHECK (io->segment_count >= 1 && io->segment_count <= IO_SEGMENTS_MAX
           && io->length <= IO_BYTES_MAX / BLOCK_SIZE);
  io->queue = q;
  io->error = 0;
  io->transferred = 0;
  io->rest = NULL;
  io->number = 0;               /* here: how often it was started anew */
  list_init (&io->link);
  q->in_flight++;
  io_start_or_wait (uring_queue (q), io);
}

static void
kick (struct queue *q)
{
  struct uring_queue *queue = uring_queue (q);

  /* It may take fewer than there are; and nothing at all while the kernel has no
   * memory for requests, which passes. */
  while (io_uring_sq_ready (&queue->ring) > 0) {
    int submitted = io_uring_submit (&queue->ring);

    if (submitted < 0) {
      CHECK (submitted == -EAGAIN || submitted == -EBUSY || submitted == -EINTR
             || submitted == -ENOMEM);
      if (submitted != -EINTR)
        sleep_ms (1);
    }
  }
}

/* --- completions --- */

/* The file system turned out to have no O_DIRECT only now. */
static void
device_become_buffered (struct uring_device *device)
{
  int flags = fcntl (device->fd, F_GETFL);

  if (!atomic_exchange (&device->is_direct, false))
    return;
  fcntl (device->fd, F_SETFL, flags & ~O_DIRECT);
  log_info ("%s: the file system has no O_DIRECT, using buffered I/O", device->path);
}

static uint64_t
io_bytes_left (const struct io *io)
{
  return io->length * BLOCK_SIZE - io->transferred;
}

/* The first BYTES of what was left have come over: io->rest becomes what remains,
 * with empty segments for those that are done. */
static int
io_advance (struct io *io, uint64_t bytes)
{
  if (!io->rest) {
    io->rest = malloc (io->segment_count * sizeof *io->rest);
    if (!io->rest)
      return -ENOMEM;
    memcpy (io->rest, io->segments, io->segment_count * sizeof *io->rest);
  }
  io->transferred += bytes;
  for (unsigned i = 0; bytes > 0; i++) {
    uint64_t used = MIN (bytes, io->rest[i].iov_len);

    io->rest[i].iov_base = (char *) io->rest[i].iov_base + used;
    io->rest[i].iov_len -= used;
    bytes -= used;
  }
  return 0;
}

/* Beyond the end of the device there are zeros. */
static void
io_zero_rest (struct io *io)
{
  const struct iovec *segments = io->rest ? io->rest : io->segments;

  for (unsigned i = 0; i < io->segment_count; i++)
    memset (segments[i].iov_base, 0, segments[i].iov_len);
}

static bool
is_end_of_file (struct uring_device *device, const struct io *io)
{
  struct stat stat;

  return !device->is_block_device && fstat (device->fd, &stat) == 0
         && io->place * BLOCK_SIZE + io->transferred >= (uint64_t) stat.st_size;
}

/* RESULT bytes have come over.  True: it is over, one way or the other. */
static bool
transfer_proceed (struct uring_device *device, struct io *io, uint64_t result)
{
  if (result == io_bytes_left (io))
    return true;
  if (result == 0 && io->kind == IO_WRITE) {
    io->error = -EIO;
    return true;
  }
  if (result == 0) {
    io_zero_rest (io);
    return true;
  }
  io->error = io_advance (io, result);
  if (io->error)
    return true;
  if (io->transferred % BLOCK_SIZE == 0)
    return false;
  /* A direct transfer ends within a block only at the end of a file. */
  if (io->kind == IO_READ && is_end_of_file (device, io)) {
    io_zero_rest (io);
    return true;
  }
  if (!atomic_load (&device->is_direct))
    return false;
  io->error = -EIO;
  return true;
}

/* True: it is over, io->error says how.  False: to be started again. */
static bool
io_proceed (struct uring_device *device, struct io *io, int result)
{
  bool is_transfer = io->kind == IO_READ || io->kind == IO_WRITE;

  if (result >= 0)
    return !is_transfer || transfer_proceed (device, io, result);
  if ((result == -EAGAIN || result == -EINTR) && ++io->number < ATTEMPTS_MAX)
    return false;
  /* It may have been submitted before another one made the device buffered. */
  if (result == -EINVAL && is_transfer && io->number++ == 0) {
    device_become_buffered (device);
    return false;
  }
  if (result == -EOPNOTSUPP && io->kind == IO_DISCARD)
    atomic_store (&device->can_discard, false);
  io->error = result;
  return true;
}

/* Takes what the kernel has completed: io that are over go to COMPLETED. */
static void
reap (struct uring_queue *queue, struct list *completed)
{
  struct uring_device *device = uring_device (queue->queue.device);
  struct list again = LIST_INIT (again);
  struct io_uring_cqe *cqe;
  struct list *link;

  while (io_uring_peek_cqe (&queue->ring, &cqe) == 0) {
    struct io *io = io_uring_cqe_get_data (cqe);
    int result = cqe->res;

    io_uring_cqe_seen (&queue->ring, cqe);
    queue->on_ring--;
    list_append (io_proceed (device, io, result) ? completed : &again, &io->link);
  }
  /* What was begun goes before what waits. */
  list_splice (&again, &queue->waiting);
  list_splice (&queue->waiting, &again);
  while (queue->on_ring < RING_ENTRIES && (link = list_take (&queue->waiting)))
    io_start (queue, container_of (link, struct io, link));
}

static unsigned
poll (struct queue *q)
{
  struct uring_queue *queue = uring_queue (q);
  struct list completed = LIST_INIT (completed);
  struct list *link;
  unsigned count = 0, prepared;

  if (queue->on_ring == 0)
    return 0;
  prepared = io_uring_sq_ready (&queue->ring);
  reap (queue, &completed);
  /* Nobody else kicks what was started here. */
  if (io_uring_sq_ready (&queue->ring) > prepared)
    kick (q);
  while ((link = list_take (&completed))) {
    struct io *io = container_of (link, struct io, link);

    if (io->rest) {
      free (io->rest);
      io->rest = NULL;
    }
    q->in_flight--;
    count++;
    io->done (io);
  }
  return count;
}

static void
wait (struct queue *q)
{
  struct uring_queue *queue = uring_queue (q);

  CHECK (q->in_flight > 0);
  kick (q);
  while (poll (q) == 0) {
    int error = io_uring_submit_and_wait (&queue->ring, 1);

    CHECK (error >= 0 || error == -EINTR || error == -EAGAIN || error == -EBUSY
           || error == -ENOMEM);
  }
}

static int
ring_fd (struct queue *q)
{
  return uring_queue (q)->ring.ring_fd;
}

static struct queue *
create_queue (struct device *d)
{
  struct uring_queue *queue = calloc (1, sizeof *queue);
  int error;

  if (!queue)
    return NULL;
  queue->queue.device = d;
  list_init (&queue->waiting);
  /* No interrupt of this thread for completions: it looks when it enters the
   * kernel anyway (Linux 5.19). */
  error = io_uring_queue_init (RING_ENTRIES, &queue->ring,
                               IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
  if (error == -EINVAL)
    error = io_uring_queue_init (RING_ENTRIES, &queue->ring, 0);
  if (error < 0) {
    free (queue);
    errno = -error;
    return NULL;
  }
  /* What is registered with a ring stays open until the ring's last request has ended. */
  if (d->memory_fd >= 0)
    error = io_uring_register_files (&queue->ring, &d->memory_fd, 1);
  if (error < 0) {
    io_uring_queue_exit (&queue->ring);
    free (queue);
    errno = -error;
    return NULL;
  }
  return &queue->queue;
}

static void
destroy_queue (struct queue *q)
{
  struct uring_queue *queue = uring_queue (q);

  CHECK (q->in_flight == 0);
  /* The ring goes later than this returns, but what was registered goes now: it may be much memory. */
  io_uring_unregister_files (&queue->ring);
  io_uring_queue_exit (&queue->ring);
  free (queue);
}

/* --- the device --- */

static void
close_device (struct device *d)
{
  struct uring_device *device = uring_device (d);

  /* Rings that are being torn down may hold the open file for a moment yet. */
  if (device->fd >= 0) {
    flock (device->fd, LOCK_UN);
    close (device->fd);
  }
  pthread_mutex_destroy (&device->grow_mutex);
  free (device->path);
  free (device);
}

static uint64_t
block_device_length (struct uring_device *device)
{
  uint64_t bytes;

  return ioctl (device->fd, BLKGETSIZE64, &bytes) < 0 ? 0 : bytes / BLOCK_SIZE;
}

static void
get_info (struct device *d, struct device_info *info)
{
  struct uring_device *device = uring_device (d);
  struct stat stat = { .st_size = 0 };

  *info = (struct device_info) {
    .is_block_device = device->is_block_device,
    .is_direct = atomic_load (&device->is_direct),
    .can_discard = atomic_load (&device->can_discard) && !device->is_read_only,
    .is_read_only = device->is_read_only,
  };
  if (device->is_block_device) {
    info->length = info->length_max = block_device_length (device);
    info->allocated = info->length * BLOCK_SIZE;
    return;
  }
  if (fstat (device->fd, &stat) < 0)
    log_error ("%s: fstat: %s", device->path, strerror (errno));
  info->length = stat.st_size / BLOCK_SIZE;
  info->length_max = INT64_MAX / BLOCK_SIZE;
  info->allocated = (uint64_t) stat.st_blocks * 512;
}

/* The mutex is held. */
static int
grow_file (struct uring_device *device, uint64_t length)
{
  struct rlimit limit;
  struct stat stat;

  if (fstat (device->fd, &stat) < 0)
    return -errno;
  if ((uint64_t) stat.st_size >= length * BLOCK_SIZE)
    return 0;
  /* Beyond its limit a process gets SIGXFSZ. */
  if (getrlimit (RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
      && length * BLOCK_SIZE > limit.rlim_cur)
    return -EFBIG;
  return ftruncate (device->fd, length * BLOCK_SIZE) < 0 ? -errno : 0;
}

static int
grow (struct device *d, uint64_t length)
{
  struct uring_device *device = uring_device (d);
  int error;

  if (device->is_block_device)
    return length > block_device_length (device) ? -ENOSPC : 0;
  if (length > INT64_MAX / BLOCK_SIZE)
    return -EFBIG;
  pthread_mutex_lock (&device->grow_mutex);
  error = grow_file (device, length);
  pthread_mutex_unlock (&device->grow_mutex);
  return error;
}

static uint64_t
host_free (struct device *d)
{
  struct uring_device *device = uring_device (d);
  struct statvfs info;

  /* Where all is 0 the file system does not know: ramfs, a tmpfs without a limit. */
  if (device->is_block_device || fstatvfs (device->fd, &info) < 0 || info.f_blocks == 0)
    return UINT64_MAX;
  return (uint64_t) info.f_bavail * info.f_frsize;
}

static const struct device_class uring_class = {
  .close = close_device,
  .get_info = get_info,
  .grow = grow,
  .host_free = host_free,
  .queue_create = create_queue,
  .queue_destroy = destroy_queue,
  .submit = submit,
  .kick = kick,
  .poll = poll,
  .wait = wait,
  .queue_fd = ring_fd,
};

/* --- opening --- */

/* One try; -EWOULDBLOCK if another one has it. */
static int
open_and_lock (struct uring_device *device, unsigned flags)
{
  int open_flags = (flags & DEVICE_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  struct stat stat_path;

  /* Before the open: that of a named pipe could wait for ever. */
  if (flags & DEVICE_CREATE)
    open_flags |= O_CREAT | O_EXCL;
  else if (stat (device->path, &stat_path) < 0)
    return -errno;
  else if (S_ISBLK (stat_path.st_mode))
    open_flags |= O_EXCL;
  else if (!S_ISREG (stat_path.st_mode))
    return -EINVAL;
  device->fd = open (device->path, open_flags, 0600);
  if (device->fd < 0)
    return errno == EBUSY ? -EWOULDBLOCK : -errno;
  if (fstat (device->fd, &stat_path) < 0)
    return -errno;
  device->is_block_device = S_ISBLK (stat_path.st_mode);
  if (!device->is_block_device && !S_ISREG (stat_path.st_mode))
    return -EINVAL;
  return flock (device->fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* So that a power cut does not take the file's name away. */
static void
flush_directory (const char *path)
{
  char *copy = strdup (path);
  int fd = copy ? open (dirname (copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

  if (fd < 0 || fsync (fd) < 0)
    log_warning ("%s: its directory could not be flushed: %s", path, strerror (errno));
  if (fd >= 0)
    close (fd);
  free (copy);
}

/* Not with open: that would leave a new file behind where it fails. */
static void
device_become_direct (struct uring_device *device)
{
  int flags = fcntl (device->fd, F_GETFL);

  atomic_store (&device->is_direct, true);
  if (fcntl (device->fd, F_SETFL, flags | O_DIRECT) < 0)
    device_become_buffered (device);
}

static uint64_t
now_ms (void)
{
  return clock_ns () / 1000000;
}

int
device_open (const char *path, unsigned flags, unsigned lock_wait_ms, struct device **result)
{
  struct uring_device *device = calloc (1, sizeof *device);
  uint64_t deadline = now_ms () + lock_wait_ms;
  int error;

  if (!device)
    return -ENOMEM;
  device->device.class = &uring_class;
  device->device.memory_fd = -1;
  device->fd = -1;
  pthread_mutex_init (&device->grow_mutex, NULL);
  device->path = strdup (path);
  error = device->path ? open_and_lock (device, flags) : -ENOMEM;
  while (error == -EWOULDBLOCK && now_ms () < deadline) {
    if (device->fd >= 0)
      close (device->fd);
    device->fd = -1;
    sleep_ms (LOCK_RETRY_MS);
    /* What CREATE has made is there now. */
    error = open_and_lock (device, flags & ~DEVICE_CREATE);
  }
  if (error) {
    close_device (&device->device);
    return error;
  }
  if (flags & DEVICE_CREATE)
    flush_directory (path);
  device->is_read_only = flags & DEVICE_READ_ONLY;
  atomic_init (&device->can_discard, true);
  device_become_direct (device);
  *result = &device->device;
  return 0;
}
