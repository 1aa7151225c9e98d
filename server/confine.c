/* SPDX-License-Identifier: BSD-2-Clause */
/* confine.c - what the process gives up, so that whoever takes it over gets little.
 *
 * The user: as soon as the addresses are bound, before anything is read that comes from others.
 * System calls: once all runs.  What is forbidden is what a block server never does (start
 * programs, look into other processes, change the system); it fails with EPERM.  Files that its
 * user may open it can open still.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/log.h"
#include "server.h"

int
confine_user (const char *name)
{
  const struct passwd *user = getpwnam (name);

  if (!user) {
    log_error ("--user %s: there is no such user", name);
    return -ENOENT;
  }
  if (initgroups (name, user->pw_gid) == -1 || setgid (user->pw_gid) == -1
      || setuid (user->pw_uid) == -1) {
    log_error ("--user %s: %s", name, strerror (errno));
    return -EPERM;
  }
  /* It must be for good. */
  if (user->pw_uid != 0 && setuid (0) == 0) {
    log_error ("--user %s: root can be had back", name);
    return -EPERM;
  }
  return 0;
}

/* --- system calls --- */

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

static const unsigned forbidden[] = {
  SYS_execve, SYS_execveat,
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
  SYS_ptrace,                      /* how leaks are looked for at the end */
#endif
  SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_kcmp,
  SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups,
  SYS_setfsuid, SYS_setfsgid, SYS_capset,
  SYS_mount, SYS_umount2, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsmount, SYS_pivot_root,
  SYS_chroot, SYS_unshare, SYS_setns, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_mknodat,
  SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_bpf,
  SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_personality,
  SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_settimeofday, SYS_clock_settime,
  SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_syslog,
};

/* Load the architecture; the number; one comparison each; and the two ends. */
#define PROGRAM_MAX (8 + ARRAY_COUNT (forbidden))

int
confine_calls (void)
{
  struct sock_filter program[PROGRAM_MAX];
  struct sock_fprog whole = { .filter = program };
  unsigned short at = 0;

  program[at++] = (struct sock_filter) BPF_STMT (BPF_LD | BPF_W | BPF_ABS,
                                                 offsetof (struct seccomp_data, arch));
  program[at++] = (struct sock_filter) BPF_JUMP (BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
  program[at++] = (struct sock_filter) BPF_STMT (BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  program[at++] = (struct sock_filter) BPF_STMT (BPF_LD | BPF_W | BPF_ABS,
                                                 offsetof (struct seccomp_data, nr));
  /* The other numbers of x86-64, with pointers of 32 bits. */
  program[at++] = (struct sock_filter) BPF_JUMP (BPF_JMP | BPF_JGE | BPF_K, 0x40000000,
                                                 (uint8_t) ARRAY_COUNT (forbidden) + 1, 0);
  for (unsigned i = 0; i < ARRAY_COUNT (forbidden); i++)
    program[at++] = (struct sock_filter) BPF_JUMP (BPF_JMP | BPF_JEQ | BPF_K, forbidden[i],
                                                   (uint8_t) (ARRAY_COUNT (forbidden) - i), 0);
  program[at++] = (struct sock_filter) BPF_STMT (BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  program[at++] = (struct sock_filter) BPF_STMT (BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  whole.len = at;
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
      || syscall (SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &whole) != 0)
    return -errno;
  return 0;
}

#else

int
confine_calls (void)
{
  return -ENOSYS;
}

#endif
