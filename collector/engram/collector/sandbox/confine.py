"""What a process gives up for good before it runs a stranger's query. Linux; no root needed.

Four layers, each tried, each told: limits of the kernel (`rlimits`); no program, no socket, no
other process (`seccomp`); a network with nothing in it (`network`); no file but the lake's and
Python's own (`landlock`). The last three are missing in some containers and on other systems;
DuckDB's own locks hold everywhere. All of it before the first thread: a thread keeps what it had.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_CLONE_THREAD: Final = 0x10000
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2

_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CALLS: Final[dict[str, tuple[int, int]]] = {
    # (x86_64, aarch64); -1: there is none.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206),
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "io_uring_setup": (425, 425), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "symlinkat": (266, 36),
    "linkat": (265, 37), "renameat2": (316, 276), "rename": (82, -1), "link": (86, -1),
    "symlink": (88, -1), "chmod": (90, -1), "fchmodat": (268, 53), "chown": (92, -1),
    "fchownat": (260, 54),
}  # fmt: skip
"""System calls that a query never needs: each is answered with EPERM."""
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)

_READ: Final = 0b1100  # READ_FILE, READ_DIR
_WRITE: Final = 0b0110 | 1 << 14  # WRITE_FILE, READ_FILE, TRUNCATE
_MAKE: Final = 1 << 5 | 1 << 8  # REMOVE_FILE, MAKE_REG
_OF_FILES: Final = 0b0111 | 1 << 14 | 1 << 15
_FS_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights of files a version of Landlock knows; 16 from the fifth on."""


def confine(
    *, read: Iterable[Path], write: Iterable[Path], address_space: int, cpu_s: int
) -> tuple[str, ...]:
    """Give up everything; the names of the layers that hold."""
    libc = ctypes.CDLL(None, use_errno=True)
    rlimits(address_space=address_space, cpu_s=cpu_s)
    held = ["rlimits"]
    for name, layer in (
        ("network", lambda: _no_network(libc)),
        ("landlock", lambda: _landlock(libc, tuple(read), tuple(write))),
        ("seccomp", lambda: _seccomp(libc)),
    ):
        if _tried(layer):
            held.append(name)
    return tuple(held)


def _tried(layer: Callable[[], None]) -> bool:
    try:
        layer()
    except (OSError, AttributeError, ValueError):
        return False
    return True


def rlimits(*, address_space: int, cpu_s: int) -> None:
    """Memory, processor, files, core dumps."""
    _limit(resource.RLIMIT_AS, address_space)
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_NOFILE, 512)  # a query may have as many Parquet files open
    _limit(resource.RLIMIT_CORE, 0)
    # The shared memory of SQLite's log is 32 KiB for 4,096 pages, and its reader may extend it.
    _limit(resource.RLIMIT_FSIZE, 1 << 20)


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (value, value))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _no_network(libc: ctypes.CDLL) -> None:
    """A network of its own, with not even a loopback that is up.

    In a user namespace of its own, which needs no root where a distribution lets anybody make one.
    """
    _checked(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC))


def _landlock(libc: ctypes.CDLL, read: tuple[Path, ...], write: tuple[Path, ...]) -> None:
    """No file but these: Linux 5.13 and later."""
    create, add, restrict = 444, 445, 446
    version = _checked(libc.syscall(create, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    all_rights = (1 << _FS_RIGHTS.get(version, 16)) - 1
    # Also no TCP (4), and no abstract sockets of or signals to others (6).
    attributes = struct.pack("QQQ", all_rights, 0b11, 0b11)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _checked(
        libc.syscall(create, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    )
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(libc, add, rules, path, rights & all_rights)
        _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(restrict, rules, ctypes.c_uint32(0)))
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, add: int, rules: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return  # what is not there need not be allowed
        raise
    try:
        if path.is_dir():
            rights |= _MAKE if rights & 0b10 else 0
        else:
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, handle)
        _checked(libc.syscall(add, rules, ctypes.c_uint32(1), rule, ctypes.c_uint32(0)))
    finally:
        os.close(handle)


def _seccomp(libc: ctypes.CDLL) -> None:
    """A filter over system calls: none of `_CALLS`, and threads but no processes."""
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, "no table of system calls")
    audit, at = _ARCHITECTURES[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000

    def fail(number: int) -> int:
        return 0x00050000 | number

    program = [
        (load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill),
        (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000), (give, 0, 0, fail(errno.EPERM)),  # the x32 names of calls
    ]  # fmt: skip
    for numbers in _CALLS.values():
        if numbers[at] >= 0:
            program += [(equal, 0, 1, numbers[at]), (give, 0, 0, fail(errno.EPERM))]
    program += [
        # The C library then makes its threads by clone, whose flags can be looked at.
        (equal, 0, 1, _CLONE3[at]), (give, 0, 0, fail(errno.ENOSYS)),
        (equal, 0, 3, _CLONE[at]),
        (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), (give, 0, 0, fail(errno.EPERM)),
        (give, 0, 0, allow),
    ]  # fmt: skip
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    held = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    described = Program(len(program), ctypes.addressof(held))
    _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(described), 0, 0))
