/* A disk that forgets: records what a process does to the files below POWERCUT_ROOT.
 *
 * Built by the tests and loaded with LD_PRELOAD. Every write, truncation, creation, rename, removal and
 * sync is appended to POWERCUT_TRACE in the order in which it happened; `disk.py` plays the trace into a
 * model of a disk with a volatile cache, and can so cut the power at any point of one run, in several ways.
 * Syncs are recorded and not executed: the trace alone says what they made durable.
 *
 * What a write path misses here would be missing in the model; a test compares the model with the real files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    char op[4];
    uint32_t first, second; /* bytes of the two texts that follow */
    uint64_t inode, offset, length; /* and the bytes of data behind them */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void raw(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        long done = syscall(SYS_write, trace, at, length);
        if (done < 0) _exit(99);
        at += done;
        length -= (size_t)done;
    }
}

static void start(void) {
    if (trace != -1) return;
    const char *path = getenv("POWERCUT_TRACE"), *where = getenv("POWERCUT_ROOT");
    trace = -2;
    if (!path || !where) return;
    snprintf(root, sizeof root, "%s", where);
    root_length = strlen(root);
    trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) _exit(98);
}

static void note(const char *op, const char *first, const char *second, uint64_t inode, uint64_t offset,
                 const void *data, uint64_t length) {
    struct head head = {.inode = inode, .offset = offset, .length = length};
    memcpy(head.op, op, 4);
    head.first = (uint32_t)strlen(first);
    head.second = (uint32_t)strlen(second);
    raw(&head, sizeof head);
    raw(first, head.first);
    raw(second, head.second);
    if (data) raw(data, length);
}

/* The path, absolute and without double slashes, when it is below the root; else NULL. */
static const char *below(int folder, const char *path, char *out) {
    char joined[PATH_MAX * 2];
    start();
    if (trace < 0 || !path) return NULL;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char from[PATH_MAX], link[64];
        if (folder == AT_FDCWD) {
            if (!getcwd(from, sizeof from)) return NULL;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(link, from, sizeof from - 1);
            if (n < 0) return NULL;
            from[n] = 0;
        }
        snprintf(joined, sizeof joined, "%s/%s", from, path);
    }
    size_t k = 0;
    for (const char *p = joined; *p && k < PATH_MAX - 1; p++)
        if (!(*p == '/' && k && out[k - 1] == '/')) out[k++] = *p;
    while (k > 1 && out[k - 1] == '/') k--;
    out[k] = 0;
    if (strncmp(out, root, root_length) || (out[root_length] && out[root_length] != '/')) return NULL;
    return out;
}

/* Whether a descriptor is of a regular file or directory below the root; fills in its path. */
static int ours(int descriptor, struct stat *info, char *path) {
    char link[64];
    start();
    if (trace < 0 || descriptor == trace) return 0;
    if (fstat(descriptor, info) || !(S_ISREG(info->st_mode) || S_ISDIR(info->st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return !strncmp(path, root, root_length) && (!path[root_length] || path[root_length] == '/');
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    int (*real)(int, const char *, int, ...) = REAL(openat);
    const char *mine = (flags & (O_CREAT | O_TRUNC)) ? below(folder, path, full) : NULL;
    if (!mine || flags & O_PATH) return real(folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat info;
    int existed = stat(mine, &info) == 0;
    int descriptor = real(folder, path, flags, mode), kept = errno;
    if (descriptor >= 0 && !fstat(descriptor, &info) && S_ISREG(info.st_mode)) {
        if (!existed) note("crea", mine, "", info.st_ino, 0, NULL, 0);
        else if (flags & O_TRUNC) note("trun", mine, "", info.st_ino, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
    return descriptor;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return opened(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* One written range, told after the write: where it went is known from the descriptor's new offset. */
static void wrote(int descriptor, uint64_t inode, const char *path, off_t at, ssize_t done, const struct iovec *parts) {
    if (at < 0) at = lseek(descriptor, 0, SEEK_CUR) - done;
    for (; done > 0; parts++) {
        size_t n = parts->iov_len < (size_t)done ? parts->iov_len : (size_t)done;
        if (n) note("writ", path, "", inode, (uint64_t)at, parts->iov_base, n);
        at += (off_t)n;
        done -= (ssize_t)n;
    }
}

#define WRITE(call, where, parts) \
    struct stat info; \
    char path[PATH_MAX]; \
    if (!ours(descriptor, &info, path)) return call; \
    pthread_mutex_lock(&lock); \
    ssize_t done = call; \
    int kept = errno; \
    if (done > 0) wrote(descriptor, info.st_ino, path, where, done, parts); \
    pthread_mutex_unlock(&lock); \
    errno = kept; \
    return done;

#define ONE (&(struct iovec){(void *)data, length})

ssize_t write(int descriptor, const void *data, size_t length) { WRITE(REAL(write)(descriptor, data, length), -1, ONE) }
ssize_t writev(int descriptor, const struct iovec *parts, int count) { WRITE(REAL(writev)(descriptor, parts, count), -1, parts) }
ssize_t pwrite(int descriptor, const void *data, size_t length, off_t at) { WRITE(REAL(pwrite)(descriptor, data, length, at), at, ONE) }
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t at) { WRITE(REAL(pwrite64)(descriptor, data, length, at), at, ONE) }
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t at) { WRITE(REAL(pwritev)(descriptor, parts, count, at), at, parts) }
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t at) { WRITE(REAL(pwritev64)(descriptor, parts, count, at), at, parts) }

#define ON_DESCRIPTOR(call, op, size) \
    struct stat info; \
    char path[PATH_MAX]; \
    if (!ours(descriptor, &info, path)) return call; \
    pthread_mutex_lock(&lock); \
    int done = call, kept = errno; \
    if (!done) note(op, path, "", info.st_ino, (uint64_t)(size), NULL, 0); \
    pthread_mutex_unlock(&lock); \
    errno = kept; \
    return done;

int ftruncate(int descriptor, off_t size) { ON_DESCRIPTOR(REAL(ftruncate)(descriptor, size), "trun", size) }
int ftruncate64(int descriptor, off64_t size) { ON_DESCRIPTOR(REAL(ftruncate64)(descriptor, size), "trun", size) }
int posix_fallocate(int descriptor, off_t at, off_t size) { ON_DESCRIPTOR(REAL(posix_fallocate)(descriptor, at, size), "exte", at + size) }
int posix_fallocate64(int descriptor, off64_t at, off64_t size) { ON_DESCRIPTOR(REAL(posix_fallocate64)(descriptor, at, size), "exte", at + size) }

static int synced(int descriptor, int (*real)(int)) {
    struct stat info;
    char path[PATH_MAX];
    if (!ours(descriptor, &info, path)) return real(descriptor);
    pthread_mutex_lock(&lock);
    note(S_ISDIR(info.st_mode) ? "syncdir" : "sync", path, "", info.st_ino, S_ISDIR(info.st_mode), NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int descriptor) { return synced(descriptor, REAL(fsync)); }
int fdatasync(int descriptor) { return synced(descriptor, REAL(fdatasync)); }

#define ON_PATH(folder, call, op, second) \
    char full[PATH_MAX]; \
    const char *mine = below(folder, path, full); \
    if (!mine) return call; \
    pthread_mutex_lock(&lock); \
    int done = call, kept = errno; \
    if (!done) note(op, mine, second, 0, 0, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    errno = kept; \
    return done;

int unlink(const char *path) { ON_PATH(AT_FDCWD, REAL(unlink)(path), "unli", "") }
int unlinkat(int folder, const char *path, int flags) { ON_PATH(folder, REAL(unlinkat)(folder, path, flags), "unli", "") }
int remove(const char *path) { ON_PATH(AT_FDCWD, REAL(remove)(path), "unli", "") }
int rmdir(const char *path) { ON_PATH(AT_FDCWD, REAL(rmdir)(path), "unli", "") }
int mkdir(const char *path, mode_t mode) { ON_PATH(AT_FDCWD, REAL(mkdir)(path, mode), "mkdi", "") }
int mkdirat(int folder, const char *path, mode_t mode) { ON_PATH(folder, REAL(mkdirat)(folder, path, mode), "mkdi", "") }

int rename(const char *path, const char *to) {
    char there[PATH_MAX];
    const char *target = below(AT_FDCWD, to, there);
    ON_PATH(AT_FDCWD, REAL(rename)(path, to), "rena", target ? target : to)
}

int renameat(int folder, const char *path, int into, const char *to) {
    char there[PATH_MAX];
    const char *target = below(into, to, there);
    ON_PATH(folder, REAL(renameat)(folder, path, into, to), "rena", target ? target : to)
}

/* The program under test tells the trace what it promised: an acknowledgement, a step. */
void powercut_note(const char *text) {
    start();
    if (trace < 0) return;
    pthread_mutex_lock(&lock);
    note("note", text, "", 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
}
