/* A disk that fails on command, for a process started with LD_PRELOAD=disk.so.
 *
 * DISK_FOLDER   only files below this folder are touched
 * DISK_CONTROL  a file of 32-bit integers, shared with the test that sets them (struct control)
 * DISK_LOG      every write, truncation, sync and unlink is appended here: a head of five 32-bit
 *               integers (operation, file number, offset low, offset high, length), then the bytes
 *
 * What happens to -shm files is left alone: they are memory, mapped, and not durable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
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
#include <sys/types.h>
#include <unistd.h>

struct control {
    int32_t fail_sync;  /* 1: the next sync fails with EIO, n: the n-th; then 0 and `failed` counts */
    int32_t full;       /* 1: writes that make a file larger fail with ENOSPC, 2: all writes do */
    int32_t fail_read;  /* 1: reads fail with EIO, n: the n-th */
    int32_t fail_write; /* 1: the next write fails with EIO, n: the n-th */
    int32_t failed;     /* how many calls have been failed */
    int32_t syncs;      /* how many syncs were asked for */
    int32_t after;      /* how many syncs and writes were asked for after a sync had failed */
    int32_t fail_home;  /* 1: the next sync of a file that is no log fails with EIO, n: the n-th */
    int32_t error;      /* what writes fail with while the disk is `full`: an errno, 0 for ENOSPC */
    int32_t read_only;  /* 1: nothing can be written or made any more: EROFS, as of a file system that met an error */
};

enum { WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4, NAME = 5 };
enum { FILES = 4096, NAMES = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control none, *control = &none;
static int log_fd = -1;
static const char *folder;
static size_t folder_length;
static int file_of[FILES]; /* by descriptor: 0 is not ours, else the number of its name */
static char *names[NAMES];
static int sync_failed;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    if (real_write) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_read = dlsym(RTLD_NEXT, "read");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    folder = getenv("DISK_FOLDER");
    folder_length = folder ? strlen(folder) : 0;
    const char *path = getenv("DISK_CONTROL");
    if (path) {
        int fd = real_open(path, O_RDWR);
        if (fd >= 0) {
            void *at = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (at != MAP_FAILED) control = at;
            real_close(fd);
        }
    }
    path = getenv("DISK_LOG");
    if (path) log_fd = real_open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
}

static void note(int operation, int file, int64_t offset, const void *data, size_t length) {
    if (log_fd < 0) return;
    uint32_t head[5] = {operation, file, (uint32_t)offset, (uint32_t)(offset >> 32), (uint32_t)length};
    real_write(log_fd, head, sizeof head);
    if (data && length) real_write(log_fd, data, length);
}

static int number_of(const char *path) {
    if (!folder_length || strncmp(path, folder, folder_length)) return 0;
    const char *name = path + folder_length;
    size_t length = strlen(name);
    if (length >= 4 && !strcmp(name + length - 4, "-shm")) return 0;
    int i;
    for (i = 1; i < NAMES && names[i]; i++)
        if (!strcmp(names[i], name)) return i;
    if (i == NAMES) abort();
    names[i] = strdup(name);
    note(NAME, i, 0, name, length);
    return i;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FILES) {
        pthread_mutex_lock(&lock);
        file_of[fd] = number_of(path);
        pthread_mutex_unlock(&lock);
    }
    return fd;
}

static int ours(int fd) { return fd >= 0 && fd < FILES ? file_of[fd] : 0; }

/* 1 when this call is the one to fail. */
static int strikes(int32_t *counter) {
    if (*counter <= 0 || --*counter) return 0;
    control->failed++;
    return 1;
}

static int refused(const char *path, int flags) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (!control->read_only || !writes || !folder_length || strncmp(path, folder, folder_length)) return 0;
    errno = EROFS;
    return 1;
}

#define OPEN(NAME)                                   \
    int NAME(const char *path, int flags, ...) {     \
        begin();                                     \
        va_list args;                                \
        va_start(args, flags);                       \
        int mode = va_arg(args, int);                \
        va_end(args);                                \
        if (refused(path, flags)) return -1;         \
        return opened(real_open(path, flags, mode), path); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    begin();
    if (fd >= 0 && fd < FILES) file_of[fd] = 0;
    return real_close(fd);
}

static ssize_t put(int fd, const void *data, size_t length, off_t offset, int here) {
    int file = ours(fd);
    if (!file) return here ? real_write(fd, data, length) : real_pwrite(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    struct stat found;
    if (here) offset = lseek(fd, 0, SEEK_CUR);
    if (sync_failed) control->after++;
    if (strikes(&control->fail_write)) {
        errno = EIO;
    } else if (control->full == 2 || (control->full == 1 && !fstat(fd, &found) && offset + (off_t)length > found.st_size)) {
        control->failed++;
        errno = control->error ? control->error : ENOSPC;
    } else if (control->read_only) {
        control->failed++;
        errno = EROFS;
    } else {
        done = here ? real_write(fd, data, length) : real_pwrite(fd, data, length, offset);
        if (done > 0) note(WRITE, file, offset, data, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    begin();
    return put(fd, data, length, 0, 1);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    begin();
    return put(fd, data, length, offset, 0);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    begin();
    return put(fd, data, length, offset, 0);
}

static int read_fails(int fd) {
    if (!ours(fd)) return 0;
    pthread_mutex_lock(&lock);
    int fails = strikes(&control->fail_read);
    pthread_mutex_unlock(&lock);
    if (fails) errno = EIO;
    return fails;
}
ssize_t read(int fd, void *data, size_t length) {
    begin();
    return read_fails(fd) ? -1 : real_read(fd, data, length);
}
ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    begin();
    return read_fails(fd) ? -1 : real_pread(fd, data, length, offset);
}
ssize_t pread64(int fd, void *data, size_t length, off_t offset) {
    begin();
    return read_fails(fd) ? -1 : real_pread(fd, data, length, offset);
}

static int sync_it(int fd, int (*real)(int)) {
    int file = ours(fd);
    if (!file) return real(fd);
    pthread_mutex_lock(&lock);
    int done;
    control->syncs++;
    if (sync_failed) control->after++;
    const char *name = names[file];
    size_t length = strlen(name);
    int home = length < 4 || strcmp(name + length - 4, "-wal");
    if (strikes(&control->fail_sync) || (home && strikes(&control->fail_home))) {
        sync_failed = 1;
        errno = EIO;
        done = -1;
    } else {
        done = log_fd < 0 ? real(fd) : 0; /* the log stands for the disk: no need to wait for one */
        if (!done) note(SYNC, file, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int fsync(int fd) {
    begin();
    return sync_it(fd, real_fsync);
}
int fdatasync(int fd) {
    begin();
    return sync_it(fd, real_fdatasync);
}

static int cut(int fd, off_t length) {
    int file = ours(fd);
    if (!file) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    int done = real_ftruncate(fd, length);
    if (!done) note(TRUNCATE, file, length, 0, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate(int fd, off_t length) {
    begin();
    return cut(fd, length);
}
int ftruncate64(int fd, off_t length) {
    begin();
    return cut(fd, length);
}

int unlink(const char *path) {
    begin();
    pthread_mutex_lock(&lock);
    int file = number_of(path);
    int done = real_unlink(path);
    if (file && !done) note(UNLINK, file, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
