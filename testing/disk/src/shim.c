/* Stands between a process and its disk, for tests. Two jobs:
 *
 * Power loss. SHIM_SHADOW names a directory that holds what would be left if the power failed now: a file's bytes as
 * of its last fsync, a directory's names as of its own last fsync, and nothing else. Each fsync copies there.
 *
 * Faults. SHIM_FAULT names a file; what it says goes wrong for files under SHIM_ROOT while it exists:
 * "full" writes fail with ENOSPC, "eio" fsync fails with EIO, "readonly" opening for writing fails with EROFS, "lie"
 * fsync says yes and does nothing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

/* System calls as they are, so that the shim never meets itself. */
static int raw_open(const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int under_root(const char *path) {
    const char *root = getenv("SHIM_ROOT");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return under_root(path);
}

static int fault_is(const char *fault) {
    const char *control = getenv("SHIM_FAULT");
    char text[32];
    if (!control) return 0;
    int fd = raw_open(control, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length < 0) return 0;
    text[length] = 0;
    return strcmp(text, fault) == 0;
}

static int write_all(int fd, const char *bytes, ssize_t length) {
    while (length > 0) {
        ssize_t written = syscall(SYS_write, fd, bytes, length);
        if (written <= 0) return -1;
        bytes += written;
        length -= written;
    }
    return 0;
}

/* The names of a directory, each with the inode it stands for. */
static int copy_names(int fd, int out) {
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    if (!dir) return -1;
    struct dirent *entry;
    int result = 0;
    while (result == 0 && (entry = readdir(dir))) {
        char line[512];
        if (entry->d_name[0] == '.') continue;
        int length = snprintf(line, sizeof line, "%lu %c %s\n", (unsigned long)entry->d_ino,
                              entry->d_type == DT_DIR ? 'd' : 'f', entry->d_name);
        result = write_all(out, line, length);
    }
    closedir(dir);
    return result;
}

static int copy_bytes(int fd, int out) {
    static char buffer[1 << 16];
    char link[64];
    /* The file may be open for writing only. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = raw_open(link, O_RDONLY | O_CLOEXEC, 0);
    if (in < 0) return -1;
    ssize_t length = 0;
    int result = 0;
    while (result == 0 && (length = syscall(SYS_read, in, buffer, sizeof buffer)) > 0) {
        result = write_all(out, buffer, length);
    }
    syscall(SYS_close, in);
    return length < 0 ? -1 : result;
}

/* A sync that cannot be copied must not be believed: the process ends. */
static void survive(int fd) {
    const char *shadow = getenv("SHIM_SHADOW");
    char path[PATH_MAX], temporary[PATH_MAX], durable[PATH_MAX];
    struct stat status;
    if (!shadow || !path_of(fd, path) || fstat(fd, &status)) return;
    int is_dir = S_ISDIR(status.st_mode);
    snprintf(durable, sizeof durable, "%s/%s/%lu", shadow, is_dir ? "names" : "bytes", (unsigned long)status.st_ino);
    snprintf(temporary, sizeof temporary, "%s/copying", shadow);
    pthread_mutex_lock(&copying);
    int out = raw_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0 || (is_dir ? copy_names(fd, out) : copy_bytes(fd, out)) || rename(temporary, durable)) {
        static const char message[] = "the shim could not copy what was synced\n";
        write_all(2, message, sizeof message - 1);
        abort();
    }
    syscall(SYS_close, out);
    pthread_mutex_unlock(&copying);
}

static int sync_file(int fd) {
    char path[PATH_MAX];
    if (path_of(fd, path) && fault_is("eio")) {
        errno = EIO;
        return -1;
    }
    if (!fault_is("lie")) survive(fd);
    return 0;
}

int fsync(int fd) { return sync_file(fd); }
int fdatasync(int fd) { return sync_file(fd); }

static int is_full(int fd) {
    char path[PATH_MAX];
    /* The log's index is shared memory, not disk. */
    if (!path_of(fd, path) || strstr(path, "-shm") || !fault_is("full")) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return is_full(fd) ? -1 : syscall(SYS_pwrite64, fd, bytes, length, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }
ssize_t write(int fd, const void *bytes, size_t length) {
    return is_full(fd) ? -1 : syscall(SYS_write, fd, bytes, length);
}

static int open_file(const char *path, int flags, mode_t mode) {
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && under_root(path) && fault_is("readonly")) {
        errno = EROFS;
        return -1;
    }
    return raw_open(path, flags, mode);
}

#define OPEN(name)                                          \
    int name(const char *path, int flags, ...) {            \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                       \
        return open_file(path, flags, mode);                \
    }
OPEN(open)
OPEN(open64)
