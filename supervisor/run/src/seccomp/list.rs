//! The reviewed list of system calls. The build script makes the filter of it.
//!
//! Four kinds, and every call is of one of them:
//! - [`ALLOWED`]: what servers, language run-times, shells and databases need, and what the kernel
//!   confines by itself (capabilities are checked in the container's own user namespace).
//! - [`BEYOND_BASELINE`]: allowed as well, but for services that ask for less.
//! - [`CONDITIONAL`]: allowed for the arguments that are named.
//! - [`DENIED`]: `EPERM`, the honest answer to a program that asks for what a container may not do.
//!
//! Whatever is not named here gets `ENOSYS`, as if the kernel were older than the call: programs
//! and libraries probe for new calls and know what to do without them. So a call that is added to
//! the kernel tomorrow is shut and breaks nothing.

/// A test on the arguments of a system call; arguments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The argument is this value.
    Equal(u8, u64),
    /// Both arguments have these values.
    BothEqual((u8, u64), (u8, u64)),
    /// The argument is greater.
    Above(u8, u64),
    /// None of these bits is set in the argument.
    NoBits(u8, u64),
    /// All of these bits are set in the argument.
    AllBits(u8, u64),
}

/// System calls that belong together; a comment says why they are in their list.
#[derive(Debug)]
pub struct Group {
    /// Names as libseccomp knows them.
    pub names: &'static [&'static str],
}

/// A system call that is allowed for some arguments.
#[derive(Debug)]
pub struct Conditional {
    /// Name as libseccomp knows it.
    pub name: &'static str,
    /// Allowed if one of these holds.
    pub allowed: &'static [Condition],
    /// Refused with this error if one of these holds; anything else gets `ENOSYS`.
    pub refused: &'static [(Condition, i32)],
}

const EPERM: i32 = libc::EPERM;
const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;
const EPROTONOSUPPORT: i32 = libc::EPROTONOSUPPORT;

/// Allowed whatever the arguments.
#[rustfmt::skip] // a list to be read, several names to a line
pub const ALLOWED: &[Group] = &[
    Group {
        // open descriptors: read, write, seek, duplicate, copy, wait for
        names: &[
            "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev",
            "preadv2", "pwritev2", "lseek", "_llseek", "close", "close_range", "dup", "dup2",
            "dup3", "fcntl", "fcntl64", "ioctl", "flock", "fsync", "fdatasync", "sync", "syncfs",
            "sync_file_range", "fadvise64", "fadvise64_64", "readahead", "fallocate", "ftruncate",
            "ftruncate64", "sendfile", "sendfile64", "splice", "tee", "vmsplice",
            "copy_file_range", "pipe", "pipe2", "select", "_newselect", "pselect6",
            "pselect6_time64", "poll", "ppoll", "ppoll_time64", "epoll_create", "epoll_create1",
            "epoll_ctl", "epoll_ctl_old", "epoll_wait", "epoll_wait_old", "epoll_pwait",
            "epoll_pwait2", "eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create",
            "timerfd_settime", "timerfd_settime64", "timerfd_gettime", "timerfd_gettime64",
            "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
            "memfd_create", "memfd_secret", "io_setup", "io_submit", "io_cancel", "io_destroy",
            "io_getevents", "io_pgetevents", "io_pgetevents_time64", "cachestat",
        ],
    },
    Group {
        // files by name; permissions, mounts and id mappings decide, not this list
        names: &[
            "open", "openat", "openat2", "creat", "access", "faccessat", "faccessat2", "stat",
            "stat64", "lstat", "lstat64", "fstat", "fstat64", "fstatat64", "newfstatat", "statx",
            "statfs", "statfs64", "fstatfs", "fstatfs64", "getdents", "getdents64", "getcwd",
            "chdir", "fchdir", "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink",
            "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "rename", "renameat",
            "renameat2", "truncate", "truncate64", "chmod", "fchmod", "fchmodat", "fchmodat2",
            "chown", "chown32", "lchown", "lchown32", "fchown", "fchown32", "fchownat", "umask",
            "utime", "utimes", "utimensat", "utimensat_time64", "futimesat", "getxattr",
            "lgetxattr", "fgetxattr", "getxattrat", "setxattr", "lsetxattr", "fsetxattr",
            "setxattrat", "listxattr", "llistxattr", "flistxattr", "listxattrat", "removexattr",
            "lremovexattr", "fremovexattr", "removexattrat", "name_to_handle_at",
        ],
    },
    Group {
        // pipes and sockets by name; device nodes are refused by the kernel in a user namespace
        names: &["mknod", "mknodat"],
    },
    Group {
        // memory of the process itself
        names: &[
            "brk", "mmap", "mmap2", "munmap", "mremap", "mprotect", "madvise", "msync", "mincore",
            "mlock", "mlock2", "mlockall", "munlock", "munlockall", "remap_file_pages",
            "membarrier", "pkey_alloc", "pkey_free", "pkey_mprotect", "map_shadow_stack", "mseal",
        ],
    },
    Group {
        // processes and threads: make, run, wait for, end (clone: see the conditions)
        names: &[
            "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid",
            "waitpid", "getpid", "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid",
            "setsid", "set_tid_address", "prctl", "arch_prctl", "set_thread_area",
            "get_thread_area", "rseq", "set_robust_list", "get_robust_list", "futex",
            "futex_time64", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue",
            "pidfd_open", "pidfd_send_signal", "getcpu", "restart_syscall",
        ],
    },
    Group {
        // signals
        names: &[
            "kill", "tkill", "tgkill", "rt_sigaction", "rt_sigprocmask", "rt_sigpending",
            "rt_sigqueueinfo", "rt_tgsigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
            "rt_sigtimedwait", "rt_sigtimedwait_time64", "sigaction", "sigaltstack", "signal",
            "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "pause", "alarm", "getitimer",
            "setitimer",
        ],
    },
    Group {
        // users, groups, capabilities and confining oneself further
        names: &[
            "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid",
            "getegid32", "getresuid", "getresuid32", "getresgid", "getresgid32", "getgroups",
            "getgroups32", "setuid", "setuid32", "setgid", "setgid32", "setreuid", "setreuid32",
            "setregid", "setregid32", "setresuid", "setresuid32", "setresgid", "setresgid32",
            "setfsuid", "setfsuid32", "setfsgid", "setfsgid32", "setgroups", "setgroups32",
            "capget", "capset", "seccomp", "landlock_create_ruleset", "landlock_add_rule",
            "landlock_restrict_self",
        ],
    },
    Group {
        // limits, priorities and scheduling, checked by the kernel against limits and capabilities
        names: &[
            "getrlimit", "ugetrlimit", "setrlimit", "prlimit64", "getrusage", "getpriority",
            "setpriority", "nice", "ioprio_get", "ioprio_set", "sched_yield", "sched_getaffinity",
            "sched_setaffinity", "sched_getparam", "sched_setparam", "sched_getscheduler",
            "sched_setscheduler", "sched_getattr", "sched_setattr", "sched_get_priority_max",
            "sched_get_priority_min", "sched_rr_get_interval", "sched_rr_get_interval_time64",
        ],
    },
    Group {
        // reading clocks, sleeping, timers
        names: &[
            "time", "gettimeofday", "clock_gettime", "clock_gettime64", "clock_getres",
            "clock_getres_time64", "clock_nanosleep", "clock_nanosleep_time64", "nanosleep",
            "times", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
            "timer_gettime64", "timer_settime", "timer_settime64",
        ],
    },
    Group {
        // sockets once they are open (socket: see the conditions)
        names: &[
            "bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname",
            "getpeername", "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg",
            "recv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64",
        ],
    },
    Group {
        // System V and POSIX messages, semaphores, shared memory: the IPC namespace is the
        // container's own
        names: &[
            "ipc", "msgget", "msgctl", "msgsnd", "msgrcv", "semget", "semctl", "semop",
            "semtimedop", "semtimedop_time64", "shmget", "shmctl", "shmat", "shmdt", "mq_open",
            "mq_unlink", "mq_timedsend", "mq_timedsend_time64", "mq_timedreceive",
            "mq_timedreceive_time64", "mq_notify", "mq_getsetattr",
        ],
    },
    Group {
        // facts about the machine, and random numbers
        names: &["uname", "sysinfo", "getrandom", "riscv_flush_icache", "riscv_hwprobe"],
    },
];

/// Allowed by `RuntimeDefault`, and `EPERM` under `Baseline`: what a service that only serves can do without.
#[rustfmt::skip] // as above
pub const BEYOND_BASELINE: &[Group] = &[
    Group {
        // debuggers, crash handlers and sanitizers, within the container's own processes: whoever
        // gets hold of one of them also gets hold of what the others know
        names: &[
            "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "process_madvise",
            "process_mrelease",
        ],
    },
    Group {
        // a narrower root of one's own, which takes CAP_SYS_CHROOT
        names: &["chroot"],
    },
];

/// `EPERM`, whatever the arguments.
#[rustfmt::skip] // as above
pub const DENIED: &[Group] = &[
    Group {
        // mounts: the root is made before the program runs and is not its to change
        names: &[
            "mount", "umount", "umount2", "pivot_root", "open_tree", "open_tree_attr",
            "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "statmount",
            "listmount",
        ],
    },
    Group {
        // namespaces: a user namespace inside would give back most of what this list takes
        names: &["unshare", "setns"],
    },
    Group {
        // the kernel itself: modules, another kernel, reboot, swap, accounting, quotas, its log
        names: &[
            "init_module", "finit_module", "delete_module", "create_module", "query_module",
            "get_kernel_syms", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
            "acct", "quotactl", "quotactl_fd", "syslog", "nfsservctl", "sysfs", "_sysctl", "ustat",
            "uselib", "vhangup", "lookup_dcookie",
        ],
    },
    Group {
        // clocks and names of the machine
        names: &[
            "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex",
            "settimeofday", "stime", "sethostname", "setdomainname",
        ],
    },
    Group {
        // hardware ports, and descriptor tables of a processor from 1985
        names: &["iopl", "ioperm", "modify_ldt", "vm86", "vm86old"],
    },
    Group {
        // kernel programs and tracing: large, and rich in holes
        names: &["bpf", "perf_event_open", "kcmp"],
    },
    Group {
        // kernel keyrings are not divided as containers are
        names: &["add_key", "request_key", "keyctl"],
    },
    Group {
        // files by handle go round every path, and watching whole file systems round every
        // permission
        names: &["open_by_handle_at", "fanotify_init", "fanotify_mark"],
    },
    Group {
        // placing memory on nodes, also of other processes; run-times take a refusal calmly
        names: &[
            "mbind", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node", "move_pages",
            "migrate_pages",
        ],
    },
];

const CLONE_NEWNS: u64 = libc::CLONE_NEWNS as u64;
const CLONE_NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
const CLONE_NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
const CLONE_NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
const CLONE_NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
const CLONE_NEWPID: u64 = libc::CLONE_NEWPID as u64;
const CLONE_NEWNET: u64 = libc::CLONE_NEWNET as u64;
const CLONE_NEW_ANY: u64 =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

const fn refused_flag(flag: u64) -> (Condition, i32) {
    (Condition::AllBits(0, flag), EPERM)
}

const UNIX: u64 = libc::AF_UNIX as u64;
const INET: u64 = libc::AF_INET as u64;
const INET6: u64 = libc::AF_INET6 as u64;
const NETLINK: u64 = libc::AF_NETLINK as u64;

const fn netlink(protocol: i32) -> Condition {
    Condition::BothEqual((0, NETLINK), (2, protocol as u64))
}

const fn no_netlink(protocol: u64) -> (Condition, i32) {
    (Condition::BothEqual((0, NETLINK), (2, protocol)), EPROTONOSUPPORT)
}

const fn no_family(family: u64) -> (Condition, i32) {
    (Condition::Equal(0, family), EAFNOSUPPORT)
}

/// Allowed for some arguments only. An argument is compared in all its 64 bits, so that bits which
/// the kernel would cut off make a call fail and never pass.
pub const CONDITIONAL: &[Conditional] = &[
    Conditional {
        // processes and threads, but no new namespaces; clone3, whose flags a filter cannot see,
        // is not in any list, and C libraries fall back to clone when they read ENOSYS
        name: "clone",
        allowed: &[Condition::NoBits(0, CLONE_NEW_ANY)],
        refused: &[
            refused_flag(CLONE_NEWNS),
            refused_flag(CLONE_NEWCGROUP),
            refused_flag(CLONE_NEWUTS),
            refused_flag(CLONE_NEWIPC),
            refused_flag(CLONE_NEWUSER),
            refused_flag(CLONE_NEWPID),
            refused_flag(CLONE_NEWNET),
        ],
    },
    Conditional {
        // the Internet, local sockets, and of netlink what lists addresses and sockets, tells of
        // devices, and what PAM sends to audit; no AF_ALG, AF_VSOCK (it reaches the host's
        // hypervisor past every network rule), AF_PACKET or families nobody uses any more
        name: "socket",
        allowed: &[
            Condition::Equal(0, UNIX),
            Condition::Equal(0, INET),
            Condition::Equal(0, INET6),
            netlink(libc::NETLINK_ROUTE),
            netlink(libc::NETLINK_SOCK_DIAG),
            netlink(libc::NETLINK_AUDIT),
            netlink(libc::NETLINK_KOBJECT_UEVENT),
        ],
        refused: &[
            no_netlink(2),
            no_netlink(5),
            no_netlink(6),
            no_netlink(12),
            no_netlink(16),
            no_netlink(21),
            no_family(0),
            no_family(3),
            no_family(4),
            no_family(5),
            no_family(9),
            (Condition::Above(0, NETLINK), EAFNOSUPPORT),
        ],
    },
    Conditional {
        // pairs exist for local sockets alone
        name: "socketpair",
        allowed: &[Condition::Equal(0, UNIX)],
        refused: &[(Condition::Above(0, UNIX), EAFNOSUPPORT)],
    },
    Conditional {
        // asking for the personality, the default one, 32-bit ones and UNAME26; above all not
        // READ_IMPLIES_EXEC or a layout without randomness
        name: "personality",
        allowed: &[
            Condition::Equal(0, 0x0000_0000),
            Condition::Equal(0, 0x0000_0008),
            Condition::Equal(0, 0x0002_0000),
            Condition::Equal(0, 0x0002_0008),
            Condition::Equal(0, 0xffff_ffff),
        ],
        refused: &[],
    },
];
