/* A disk that can be asked what it would hold after a power cut.
 *
 * Loaded before the C library, it lets every call through and writes down, in order and with its
 * time, each one that changes a file or a directory below INSULA_DISK_FOLDER, into INSULA_DISK_LOG:
 * what was created, written, cut, renamed, removed, and what was synced. tests/chaos/disk.py reads
 * that and says what stands on the disk at any moment: see there for what counts as durable.
 *
 * Nothing is really synced: the kernel outlives the process, and what this disk has forgotten is
 * decided by the log alone. INSULA_DISK_SYNC_US is how long a sync takes.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if !defined(__linux__) || UINTPTR_MAX != UINT64_MAX
#error "64-bit Linux alone"
#endif

enum kind {
    CREATED = 1, WRITTEN, CUT, SYNCING, SYNCED, RENAMED, REMOVED, MADE, LINKED, MAPPED
};

/* What stands before the bytes of two paths and of the data. */
struct entry {
    uint32_t kind;
    uint32_t first, second;
    uint32_t reserved;
    uint64_t at;
    uint64_t inode;
    uint64_t place;
    uint64_t size;
};

static char folder[1024];
static size_t folder_length;
static int log_file = -1;
static long sync_us;
static uint64_t syncs;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("INSULA_DISK_FOLDER"), *file = getenv("INSULA_DISK_LOG");
    const char *takes = getenv("INSULA_DISK_SYNC_US");
    if (where == NULL || file == NULL || strlen(where) >= sizeof folder)
        return;
    int opened = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (opened < 0)
        return;
    /* Out of the way of programs that close the low numbers. */
    log_file = (int)syscall(SYS_fcntl, opened, F_DUPFD_CLOEXEC, 900);
    if (log_file < 0)
        log_file = opened;
    else
        syscall(SYS_close, opened);
    strcpy(folder, where);
    folder_length = strlen(folder);
    sync_us = takes == NULL ? 0 : atol(takes);
}

static int is_below(const char *path)
{
    return log_file >= 0 && strncmp(path, folder, folder_length) == 0
        && (path[folder_length] == '/' || path[folder_length] == '\0');
}

/* The path of a descriptor; 0 where it is none of ours. */
static int path_of(int descriptor, char *path, size_t room)
{
    char link[64];
    if (log_file < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = (ssize_t)syscall(SYS_readlinkat, AT_FDCWD, link, path, room - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return is_below(path);
}

/* The same for a path that a call names, relative to a directory; its last part need not exist. */
static int full_path(int directory, const char *name, char *path, size_t room)
{
    char base[4096];
    if (log_file < 0 || name == NULL)
        return 0;
    base[0] = '\0';
    if (name[0] != '/' && directory == AT_FDCWD && getcwd(base, sizeof base) == NULL)
        return 0;
    if (name[0] != '/' && directory != AT_FDCWD && !path_of(directory, base, sizeof base))
        return 0;
    int written = snprintf(path, room, "%s%s%s", base, base[0] == '\0' ? "" : "/", name);
    if (written < 0 || (size_t)written >= room)
        return 0;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    return is_below(path);
}

static uint64_t inode_of(int descriptor)
{
    struct stat found;
    return fstat(descriptor, &found) == 0 ? (uint64_t)found.st_ino : 0;
}

static void note(enum kind kind, const char *first, const char *second, uint64_t inode,
                 uint64_t place, const struct iovec *data, int pieces, uint64_t size)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct entry entry = {
        .kind = kind,
        .first = first == NULL ? 0 : (uint32_t)strlen(first),
        .second = second == NULL ? 0 : (uint32_t)strlen(second),
        .at = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .inode = inode, .place = place, .size = size,
    };
    struct iovec all[3 + 1024];
    int count = 0;
    all[count++] = (struct iovec){&entry, sizeof entry};
    if (entry.first) all[count++] = (struct iovec){(void *)first, entry.first};
    if (entry.second) all[count++] = (struct iovec){(void *)second, entry.second};
    for (int i = 0; i < pieces && size > 0; i++) {
        size_t taken = data[i].iov_len < size ? data[i].iov_len : size;
        if (taken) all[count++] = (struct iovec){data[i].iov_base, taken};
        size -= taken;
    }
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += all[i].iov_len;
    if (syscall(SYS_writev, log_file, all, count) != (long)wanted) {
        static const char message[] = "disk.c: the log cannot be written\n";
        syscall(SYS_write, 2, message, sizeof message - 1);
        abort();
    }
}

/* ---- opening ---- */

static int opened(int directory, const char *name, int flags, mode_t mode)
{
    char path[4096];
    int ours = (flags & (O_CREAT | O_TRUNC)) && full_path(directory, name, path, sizeof path);
    if (!ours)
        return (int)syscall(SYS_openat, directory, name, flags, mode);
    pthread_mutex_lock(&turn);
    int was_there = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int descriptor = (int)syscall(SYS_openat, directory, name, flags, mode);
    int error = errno;
    if (descriptor >= 0) {
        uint64_t inode = inode_of(descriptor);
        if (!was_there)
            note(CREATED, path, NULL, inode, 0, NULL, 0, 0);
        else if (flags & O_TRUNC)
            note(CUT, NULL, NULL, inode, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&turn);
    errno = error;
    return descriptor;
}

#define MODE_OF(flags, mode)                                                                       \
    mode_t mode = 0;                                                                               \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                               \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

int open(const char *name, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE_OF(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE_OF(flags, mode) return opened(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE_OF(flags, mode) return opened(at, name, flags, mode); }
int __open_2(const char *name, int flags) { return opened(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return opened(AT_FDCWD, name, flags, 0); }
int __openat_2(int at, const char *name, int flags) { return opened(at, name, flags, 0); }
int __openat64_2(int at, const char *name, int flags) { return opened(at, name, flags, 0); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* ---- writing ---- */

static int is_written_here(int descriptor)
{
    char path[4096];
    struct stat found;
    return log_file >= 0 && descriptor != log_file && fstat(descriptor, &found) == 0
        && S_ISREG(found.st_mode) && path_of(descriptor, path, sizeof path);
}

static ssize_t written(int descriptor, const struct iovec *data, int pieces, off_t place)
{
    int ours = is_written_here(descriptor);
    if (ours)
        pthread_mutex_lock(&turn);
    ssize_t done = place < 0 ? syscall(SYS_writev, descriptor, data, pieces)
                             : syscall(SYS_pwritev, descriptor, data, pieces, place, 0);
    int error = errno;
    if (ours) {
        if (done > 0) {
            uint64_t began = place >= 0 ? (uint64_t)place
                                        : (uint64_t)(lseek(descriptor, 0, SEEK_CUR) - done);
            note(WRITTEN, NULL, NULL, inode_of(descriptor), began, data, pieces, (uint64_t)done);
        }
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    struct iovec one = {(void *)data, size};
    return written(descriptor, &one, 1, -1);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t place)
{
    struct iovec one = {(void *)data, size};
    return written(descriptor, &one, 1, place);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t place)
{
    return pwrite(descriptor, data, size, place);
}
ssize_t writev(int descriptor, const struct iovec *data, int pieces) { return written(descriptor, data, pieces, -1); }
ssize_t pwritev(int descriptor, const struct iovec *data, int pieces, off_t place) { return written(descriptor, data, pieces, place); }
ssize_t pwritev64(int descriptor, const struct iovec *data, int pieces, off64_t place) { return written(descriptor, data, pieces, place); }

static int cut(int descriptor, off_t size)
{
    int ours = is_written_here(descriptor);
    if (ours)
        pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_ftruncate, descriptor, size), error = errno;
    if (ours) {
        if (done == 0)
            note(CUT, NULL, NULL, inode_of(descriptor), (uint64_t)size, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}
int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return cut(descriptor, size); }
int truncate(const char *name, off_t size)
{
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CLOEXEC, 0);
    if (descriptor < 0)
        return -1;
    int done = cut(descriptor, size), error = errno;
    syscall(SYS_close, descriptor);
    errno = error;
    return done;
}
int truncate64(const char *name, off64_t size) { return truncate(name, size); }

/* What is written without a call is not seen here: say so, and let the reader decide. */
static void *mapped(void *at, size_t size, int protection, int flags, int descriptor, off_t place)
{
    char path[4096];
    int shared = (flags & MAP_TYPE) == MAP_SHARED || (flags & MAP_TYPE) == MAP_SHARED_VALIDATE;
    void *found = (void *)syscall(SYS_mmap, at, size, protection, flags, descriptor, place);
    int error = errno;
    if (found != MAP_FAILED && shared && (protection & PROT_WRITE) && descriptor >= 0
        && path_of(descriptor, path, sizeof path)) {
        pthread_mutex_lock(&turn);
        note(MAPPED, path, NULL, inode_of(descriptor), 0, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return found;
}
void *mmap(void *at, size_t size, int protection, int flags, int descriptor, off_t place)
{
    return mapped(at, size, protection, flags, descriptor, place);
}
void *mmap64(void *at, size_t size, int protection, int flags, int descriptor, off64_t place)
{
    return mapped(at, size, protection, flags, descriptor, place);
}
/* Those who would use them fall back to writing. */
ssize_t sendfile(int to, int from, off_t *place, size_t count)
{
    if (is_written_here(to)) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, to, from, place, count);
}
ssize_t sendfile64(int to, int from, off64_t *place, size_t count) { return sendfile(to, from, place, count); }
ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *place, size_t count, unsigned flags)
{
    if (is_written_here(to)) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, from, start, to, place, count, flags);
}

/* ---- syncing ---- */

static int synced(int descriptor, long call)
{
    char path[4096];
    if (!path_of(descriptor, path, sizeof path))
        return (int)syscall(call, descriptor);
    uint64_t inode = inode_of(descriptor);
    pthread_mutex_lock(&turn);
    uint64_t number = ++syncs;
    note(SYNCING, path, NULL, inode, number, NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    if (sync_us > 0) {
        struct timespec takes = {sync_us / 1000000, sync_us % 1000000 * 1000};
        nanosleep(&takes, NULL);
    }
    pthread_mutex_lock(&turn);
    note(SYNCED, path, NULL, inode, number, NULL, 0, 0);
    pthread_mutex_unlock(&turn);
    return 0;
}
int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

/* ---- names ---- */

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    char first[4096], second[4096];
    int ours = full_path(from_at, from, first, sizeof first);
    ours = full_path(to_at, to, second, sizeof second) && ours;
    if (ours)
        pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags), error = errno;
    if (ours) {
        if (done == 0)
            note(RENAMED, first, second, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, flags); }

static int removed(int at, const char *name, int flags)
{
    char path[4096];
    int ours = full_path(at, name, path, sizeof path);
    if (ours)
        pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_unlinkat, at, name, flags), error = errno;
    if (ours) {
        if (done == 0)
            note(REMOVED, path, NULL, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int at, const char *name, int flags) { return removed(at, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int at, const char *name, mode_t mode)
{
    char path[4096];
    int ours = full_path(at, name, path, sizeof path);
    if (ours)
        pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_mkdirat, at, name, mode), error = errno;
    if (ours) {
        if (done == 0)
            note(MADE, path, NULL, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}
int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int at, const char *name, mode_t mode) { return made(at, name, mode); }

static int linked(int from_at, const char *from, int to_at, const char *to, int flags)
{
    char first[4096], second[4096];
    int ours = full_path(from_at, from, first, sizeof first);
    ours = full_path(to_at, to, second, sizeof second) && ours;
    if (ours)
        pthread_mutex_lock(&turn);
    int done = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags), error = errno;
    if (ours) {
        if (done == 0)
            note(LINKED, first, second, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    errno = error;
    return done;
}
int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return linked(a, from, b, to, flags); }
