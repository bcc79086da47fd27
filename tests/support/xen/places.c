/* Xen's directories, moved below the stand-in's: /var/run/xen, /var/lib/xen and their like are found in its "root".
 *
 * The functions below stand before libc's where the stand-in is preloaded (LD_PRELOAD).  In a process that runs
 * already libc's were there first, so standin_adopt() writes the same functions into the import table of the library
 * named: that library alone goes through here.  xenstored finds here, besides, what dom0's Linux tells of its ring. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "table.h"

#define PUBLIC __attribute__((visibility("default")))
#define LONGEST 512

static const char *const MOVED[] = {"/var/run/xen", "/run/xen", "/var/lib/xen", "/var/log/xen"};

/* libc's own, by the name of each function that takes a path; all that libxl 4.17 imports. */
#define EACH(DO) \
    DO(access) DO(bind) DO(connect) DO(fopen) DO(glob) DO(lstat) DO(mkdir) DO(open) \
    DO(opendir) DO(readlink) DO(rename) DO(rmdir) DO(stat) DO(unlink)

#define POINTER(name) __typeof__(&name) name;
static struct { EACH(POINTER) } libc;

/* However the test ends, xenstored does not outlive it. */
__attribute__((constructor)) static void end_with_parent(void)
{
    if (getenv(ENV_XENSTORED) && prctl(PR_SET_PDEATHSIG, SIGKILL))
        abort();
}

__attribute__((constructor)) static void find_libc(void)
{
    void *handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (!handle)
        abort();
#define FIND(name) libc.name = (__typeof__(&name))dlsym(handle, #name);
    EACH(FIND)
}

/* -- paths -- */

static bool is_moved(const char *path)
{
    for (size_t i = 0; i < sizeof MOVED / sizeof *MOVED; i++) {
        size_t length = strlen(MOVED[i]);
        if (!strncmp(path, MOVED[i], length) && (!path[length] || path[length] == '/'))
            return true;
    }
    return false;
}

/* The path itself, or where it moved to, in `buffer`.  One too long is left as it is, and not found there. */
static const char *moved(const char *path, char *buffer)
{
    const char *directory = getenv(ENV_DIRECTORY);
    if (!path || !directory || !is_moved(path))
        return path;
    return snprintf(buffer, LONGEST, "%s/root%s", directory, path) < LONGEST ? buffer : path;
}

static const struct sockaddr *moved_socket(const struct sockaddr *address, socklen_t *length,
                                           struct sockaddr_un *other)
{
    char buffer[LONGEST];
    if (address->sa_family != AF_UNIX)
        return address;
    const char *path = ((const struct sockaddr_un *)address)->sun_path;
    const char *place = path[0] ? moved(path, buffer) : path;
    if (place == path || strlen(place) >= sizeof other->sun_path)
        return address;
    *other = (struct sockaddr_un){.sun_family = AF_UNIX};
    strcpy(other->sun_path, place);
    *length = sizeof *other;
    return (const struct sockaddr *)other;
}

/* /proc/xen/xsd_port tells dom0's event channel, /proc/xen/xsd_kva is its ring; -1 for any other path. */
static int dom0_ring(const char *path)
{
    if (strncmp(path, "/proc/xen/xsd_", 14) || !getenv(ENV_XENSTORED))
        return -1;
    int fd = memfd_create("xsd", MFD_CLOEXEC);
    if (fd < 0 || (strcmp(path, "/proc/xen/xsd_port") ? ftruncate(fd, 4096) : pwrite(fd, "2", 1, 0) - 1))
        abort();
    return fd;
}

/* -- libc's functions that take a path -- */

#define MOVE(path) moved(path, (char[LONGEST]){0})

PUBLIC int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    int fd = dom0_ring(path);
    return fd < 0 ? libc.open(MOVE(path), flags, mode) : fd;
}

PUBLIC int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un other;
    address = moved_socket(address, &length, &other);
    return libc.connect(fd, address, length);
}

PUBLIC int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un other;
    address = moved_socket(address, &length, &other);
    return libc.bind(fd, address, length);
}

PUBLIC int access(const char *path, int mode)
{
    return libc.access(MOVE(path), mode);
}

PUBLIC FILE *fopen(const char *restrict path, const char *restrict mode)
{
    return libc.fopen(MOVE(path), mode);
}

PUBLIC int glob(const char *restrict pattern, int flags, int (*failed)(const char *, int), glob_t *restrict found)
{
    return libc.glob(MOVE(pattern), flags, failed, found);
}

PUBLIC int lstat(const char *restrict path, struct stat *restrict about)
{
    return libc.lstat(MOVE(path), about);
}

PUBLIC int stat(const char *restrict path, struct stat *restrict about)
{
    return libc.stat(MOVE(path), about);
}

PUBLIC int mkdir(const char *path, mode_t mode)
{
    return libc.mkdir(MOVE(path), mode);
}

PUBLIC DIR *opendir(const char *path)
{
    return libc.opendir(MOVE(path));
}

PUBLIC ssize_t readlink(const char *restrict path, char *restrict target, size_t size)
{
    return libc.readlink(MOVE(path), target, size);
}

PUBLIC int rename(const char *from, const char *to)
{
    return libc.rename(MOVE(from), MOVE(to));
}

PUBLIC int rmdir(const char *path)
{
    return libc.rmdir(MOVE(path));
}

PUBLIC int unlink(const char *path)
{
    return libc.unlink(MOVE(path));
}

/* -- a library that is loaded already -- */

/* By names of their own: a public name means libc's function in a process where that was first. */
#define HIDDEN_ALIAS(function) __attribute__((alias(#function), copy(function), visibility("hidden")))
#define ALIAS(function) extern __typeof__(function) our_##function HIDDEN_ALIAS(function);
EACH(ALIAS)

static void *ours(const char *name)
{
#define OURS(function) \
    if (!strcmp(name, #function)) \
        return (void *)our_##function;
    EACH(OURS)
    return NULL;
}

/* The linker has made these pages read-only (RELRO); they stay writable from here on. */
static void overwrite(void **slot, void *function)
{
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), page = (uintptr_t)slot & ~(size - 1);
    if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
        abort();
    *slot = function;
}

static int adopt(ElfW(Addr) base, const ElfW(Rela) *relocation, size_t count, const ElfW(Sym) *symbols,
                 const char *names)
{
    int adopted = 0;
    for (; count--; relocation++) {
        size_t symbol = ELF64_R_SYM(relocation->r_info);
        void *function = symbol ? ours(names + symbols[symbol].st_name) : NULL;
        if (function && symbols[symbol].st_shndx == SHN_UNDEF) {
            overwrite((void **)(base + relocation->r_offset), function);
            adopted++;
        }
    }
    return adopted;
}

/* From now on the library, which must be loaded, finds Xen's directories here.  How many functions it imports of
 * these; -1 where it is not loaded. */
PUBLIC int standin_adopt(const char *library)
{
    struct link_map *map;
    void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map))
        return -1;
    ElfW(Addr) at[DT_JMPREL + 1] = {0};
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag <= DT_JMPREL)
            at[entry->d_tag] = entry->d_un.d_val;
    const ElfW(Sym) *symbols = (void *)at[DT_SYMTAB];
    const char *names = (void *)at[DT_STRTAB];
    int adopted = adopt(map->l_addr, (void *)at[DT_JMPREL], at[DT_PLTRELSZ] / sizeof(ElfW(Rela)), symbols, names) +
                  adopt(map->l_addr, (void *)at[DT_RELA], at[DT_RELASZ] / sizeof(ElfW(Rela)), symbols, names);
    dlclose(handle);
    return adopted;
}
