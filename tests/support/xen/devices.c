/* Stand-ins for the other libraries that reach for Xen: event channels, grants, foreign memory, device models.
 *
 * Event channels carry one thing, VIRQ_DOM_EXC to xenstored, through the fifo.  Grants give xenstored an idle page
 * where a guest's ring would be.  Of the rest only opening and closing succeed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xen/xen.h>

#include "table.h"

#define PAGE 4096
#define PUBLIC __attribute__((visibility("default")))

/* -- libxenevtchn -- */

enum { VIRQ_PORT = 1, DOM0_STORE_PORT, FIRST_FREE_PORT };

typedef struct xenevtchn_handle {
    int fd;
    int next_port;
} xenevtchn_handle;

PUBLIC xenevtchn_handle *xenevtchn_fdopen(void *logger, int fd, unsigned flags)
{
    (void)logger, (void)flags;
    xenevtchn_handle *handle = malloc(sizeof *handle);
    if (!handle)
        abort();
    *handle = (xenevtchn_handle){.fd = fd, .next_port = FIRST_FREE_PORT};
    return handle;
}

PUBLIC xenevtchn_handle *xenevtchn_open(void *logger, unsigned flags)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? NULL : xenevtchn_fdopen(logger, fd, flags);
}

PUBLIC int xenevtchn_close(xenevtchn_handle *handle)
{
    if (handle)
        close(handle->fd);
    free(handle);
    return 0;
}

PUBLIC int xenevtchn_fd(xenevtchn_handle *handle)
{
    return handle->fd;
}

/* From here on the fifo is what the handle's fd reads; opened for writing too, so that it never ends. */
PUBLIC int xenevtchn_bind_virq(xenevtchn_handle *handle, unsigned virq)
{
    char path[256];
    if (virq != VIRQ_DOM_EXC) {
        errno = ENOSYS;
        return -1;
    }
    if (standin_path(path, sizeof path, "virq"))
        return -1;
    int fifo = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fifo < 0)
        return -1;
    int fd = dup3(fifo, handle->fd, O_CLOEXEC);
    close(fifo);
    return fd < 0 ? -1 : VIRQ_PORT;
}

PUBLIC int xenevtchn_pending(xenevtchn_handle *handle)
{
    uint32_t port;
    return read(handle->fd, &port, sizeof port) == sizeof port ? (int)port : -1;
}

PUBLIC int xenevtchn_bind_unbound_port(xenevtchn_handle *handle, uint32_t domid)
{
    (void)domid;
    return handle->next_port++;
}

PUBLIC int xenevtchn_bind_interdomain(xenevtchn_handle *handle, uint32_t domid, uint32_t port)
{
    (void)domid, (void)port;
    return handle->next_port++;
}

PUBLIC int xenevtchn_notify(xenevtchn_handle *handle, uint32_t port)
{
    (void)handle, (void)port;
    return 0;
}

PUBLIC int xenevtchn_unbind(xenevtchn_handle *handle, uint32_t port)
{
    (void)handle, (void)port;
    return 0;
}

PUBLIC int xenevtchn_unmask(xenevtchn_handle *handle, uint32_t port)
{
    (void)handle, (void)port;
    return 0;
}

/* -- handles of which nothing is asked -- */

static void *open_nothing(void)
{
    void *handle = malloc(1);
    if (!handle)
        abort();
    return handle;
}

static int close_nothing(void *handle)
{
    free(handle);
    return 0;
}

/* -- libxengnttab -- */

PUBLIC void *xengnttab_open(void *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return open_nothing();
}

PUBLIC int xengnttab_close(void *handle)
{
    return close_nothing(handle);
}

PUBLIC int xengnttab_set_max_grants(void *handle, uint32_t limit)
{
    (void)handle, (void)limit;
    return 0;
}

PUBLIC void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t reference, int protection)
{
    (void)handle, (void)domid, (void)reference, (void)protection;
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? NULL : page;
}

PUBLIC int xengnttab_unmap(void *handle, void *pages, uint32_t count)
{
    (void)handle;
    return munmap(pages, (size_t)count * PAGE);
}

/* -- libxenforeignmemory, libxendevicemodel -- */

PUBLIC void *xenforeignmemory_open(void *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return open_nothing();
}

PUBLIC int xenforeignmemory_close(void *handle)
{
    return close_nothing(handle);
}

PUBLIC void *xenforeignmemory_map(void *handle, uint32_t domid, int protection, size_t pages, const void *frames,
                                  int *errors)
{
    (void)handle, (void)domid, (void)protection, (void)pages, (void)frames, (void)errors;
    errno = ENOSYS;
    return NULL;
}

PUBLIC int xenforeignmemory_unmap(void *handle, void *address, size_t pages)
{
    (void)handle;
    return munmap(address, pages * PAGE);
}

PUBLIC void *xendevicemodel_open(void *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return open_nothing();
}

PUBLIC int xendevicemodel_close(void *handle)
{
    return close_nothing(handle);
}
