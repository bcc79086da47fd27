/* A stand-in for the hypervisor, at the level of libxencall: what libxenctrl asks of Xen is answered from the table.
 *
 * Each handle maps the table that the environment names when it opens, so that one process can be on several
 * stand-ins one after another.  What real Xen would tell xenstored by VIRQ_DOM_EXC (a domain shut down or gone) is
 * told through the fifo.  What is not answered fails with ENOSYS, as on a Xen built without it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define __XEN_TOOLS__ 1
#include <xen/xen.h>
#include <xen/version.h>
#include <xen/sched.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>

#include "table.h"

#define PAGE 4096
/* Up to Xen 4.17 (interface 0x15) a domid that is not there stands for the next one that is, and libxenctrl compares
 * what it gets; from 4.18 on it is ESRCH, and libxenctrl and xenstored take any answer for that domain's own. */
#define GETDOMAININFO_SEARCHES (XEN_DOMCTL_INTERFACE_VERSION < 0x16)
#define SHUTDOWN_REASON (XEN_DOMINF_shutdownmask << XEN_DOMINF_shutdownshift)
#define PUBLIC __attribute__((visibility("default")))

typedef struct xencall_handle {
    struct table *table;
    bool exempt; /* from being refused */
} xencall_handle;

static int fail(int error)
{
    errno = error;
    return -1;
}

int standin_path(char *buffer, size_t size, const char *name)
{
    const char *directory = getenv(ENV_DIRECTORY);
    if (!directory || !*directory)
        return fail(ENOENT);
    return (size_t)snprintf(buffer, size, "%s/%s", directory, name) < size ? 0 : fail(ENAMETOOLONG);
}

/* -- domains -- */

static struct domain *find(struct table *table, uint32_t domid)
{
    return domid < table->limit && table->domain[domid].present ? &table->domain[domid] : NULL;
}

/* Xen's list, and up to 4.17 its look at one domain, is from a domid on. */
static struct domain *first_from(struct table *table, uint32_t domid)
{
    for (; domid < table->limit; domid++)
        if (table->domain[domid].present)
            return &table->domain[domid];
    return NULL;
}

static uint32_t domid_of(const struct table *table, const struct domain *domain)
{
    return (uint32_t)(domain - table->domain);
}

static void describe(const struct table *table, const struct domain *domain, struct xen_domctl_getdomaininfo *info)
{
    memset(info, 0, sizeof *info);
    info->domain = (domid_t)domid_of(table, domain);
    info->flags = domain->flags;
    info->tot_pages = domain->pages;
    info->max_pages = domain->max_pages;
    info->cpu_time = domain->cpu_time;
    info->nr_online_vcpus = domain->vcpus;
    info->max_vcpu_id = domain->vcpus - 1;
    info->ssidref = domain->ssidref;
    info->shared_info_frame = ~0ull;
    info->gpaddr_bits = 39;
    memcpy(info->handle, domain->uuid, sizeof info->handle);
}

/* VIRQ_DOM_EXC.  Without xenstored nobody is bound to it, and a full fifo has it pending already: both are right. */
static void raise_virq(void)
{
    char path[256];
    uint32_t port = 1;
    if (standin_path(path, sizeof path, "virq"))
        return;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    int saved = errno;
    if (write(fd, &port, sizeof port) < 0)
        errno = saved;
    close(fd);
}

/* -- hypercalls -- */

static int domctl(struct table *table, struct xen_domctl *op)
{
    if (op->interface_version != XEN_DOMCTL_INTERFACE_VERSION)
        return fail(EACCES);
    bool the_next_will_do = GETDOMAININFO_SEARCHES && op->cmd == XEN_DOMCTL_getdomaininfo;
    struct domain *domain = the_next_will_do ? first_from(table, op->domain) : find(table, op->domain);
    if (!domain)
        return fail(ESRCH);
    switch (op->cmd) {
    case XEN_DOMCTL_getdomaininfo:
        describe(table, domain, &op->u.getdomaininfo);
        op->domain = (domid_t)domid_of(table, domain);
        return 0;
    case XEN_DOMCTL_destroydomain:
        domain->present = 0;
        raise_virq();
        return 0;
    case XEN_DOMCTL_pausedomain:
        domain->flags |= XEN_DOMINF_paused;
        return 0;
    case XEN_DOMCTL_unpausedomain:
        domain->flags &= ~XEN_DOMINF_paused;
        return 0;
    case XEN_DOMCTL_resumedomain:
        domain->flags &= ~(XEN_DOMINF_shutdown | SHUTDOWN_REASON);
        return 0;
    /* libxc tells a paravirtual guest by its vcpu's registers that it goes on. */
    case XEN_DOMCTL_get_address_size:
        op->u.address_size.size = 64;
        return 0;
    case XEN_DOMCTL_getvcpucontext:
        memset(op->u.vcpucontext.ctxt.p, 0, sizeof *op->u.vcpucontext.ctxt.p);
        return 0;
    case XEN_DOMCTL_setvcpucontext:
        return 0;
    }
    return fail(ENOSYS);
}

static int remote_shutdown(struct table *table, const struct sched_remote_shutdown *op)
{
    struct domain *domain = find(table, op->domain_id);
    if (!domain)
        return fail(ESRCH);
    domain->flags &= ~(XEN_DOMINF_running | XEN_DOMINF_blocked | SHUTDOWN_REASON);
    domain->flags |= XEN_DOMINF_shutdown | (op->reason & XEN_DOMINF_shutdownmask) << XEN_DOMINF_shutdownshift;
    raise_virq();
    return 0;
}

static int list_domains(struct table *table, struct xen_sysctl_getdomaininfolist *op)
{
    uint32_t listed = 0;
    struct domain *domain = first_from(table, op->first_domain);
    for (; domain && listed < op->max_domains; domain = first_from(table, domid_of(table, domain) + 1))
        describe(table, domain, &op->buffer.p[listed++]);
    op->num_domains = listed;
    return 0;
}

static int physical_info(struct xen_sysctl_physinfo *info)
{
    memset(info, 0, sizeof *info);
    info->threads_per_core = info->cores_per_socket = info->nr_nodes = 1;
    info->nr_cpus = 2;
    info->max_cpu_id = 1;
    info->cpu_khz = 2000000;
    info->capabilities = XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_pv | XEN_SYSCTL_PHYSCAP_hap;
    info->total_pages = 4u << 18;
    info->free_pages = 2u << 18;
    return 0;
}

static int sysctl(struct table *table, struct xen_sysctl *op)
{
    if (op->interface_version != XEN_SYSCTL_INTERFACE_VERSION)
        return fail(EACCES);
    switch (op->cmd) {
    case XEN_SYSCTL_getdomaininfolist:
        return list_domains(table, &op->u.getdomaininfolist);
    case XEN_SYSCTL_physinfo:
        return physical_info(&op->u.physinfo);
    case XEN_SYSCTL_sched_id:
        op->u.sched_id.sched_id = XEN_SCHEDULER_CREDIT2;
        return 0;
    case XEN_SYSCTL_cpupool_op:
        if (op->u.cpupool_op.op != XEN_SYSCTL_CPUPOOL_OP_INFO || op->u.cpupool_op.cpupool_id)
            return fail(ENOENT);
        op->u.cpupool_op.sched_id = XEN_SCHEDULER_CREDIT2;
        op->u.cpupool_op.n_dom = 1;
        return 0;
    }
    return fail(ENOSYS);
}

static int version(uint64_t command, void *answer)
{
    switch (command) {
    case XENVER_version: /* the headers' own: 0x00041100 is 4.17 */
        return (__XEN_LATEST_INTERFACE_VERSION__ >> 16) << 16 | (__XEN_LATEST_INTERFACE_VERSION__ >> 8 & 0xff);
    case XENVER_pagesize:
        return PAGE;
    case XENVER_extraversion:
        strcpy(answer, ".0-stand-in");
        return 0;
    case XENVER_changeset:
    case XENVER_commandline:
        strcpy(answer, "stand-in");
        return 0;
    case XENVER_capabilities:
        strcpy(answer, "xen-3.0-x86_64 hvm-3.0-x86_64 ");
        return 0;
    case XENVER_compile_info:
        memset(answer, 0, sizeof(struct xen_compile_info));
        return 0;
    case XENVER_platform_parameters:
        memset(answer, 0, sizeof(struct xen_platform_parameters));
        return 0;
    }
    return fail(ENOSYS);
}

static int hypercall(xencall_handle *handle, unsigned op, uint64_t first, uint64_t second)
{
    struct table *table = handle->table;
    if (table->refuse_calls && !handle->exempt)
        return fail(table->refuse_calls);
    switch (op) {
    case __HYPERVISOR_domctl:
        return domctl(table, (void *)(uintptr_t)first);
    case __HYPERVISOR_sysctl:
        return sysctl(table, (void *)(uintptr_t)first);
    case __HYPERVISOR_xen_version:
        return version(first, (void *)(uintptr_t)second);
    case __HYPERVISOR_sched_op:
        return first == SCHEDOP_remote_shutdown ? remote_shutdown(table, (void *)(uintptr_t)second) : fail(ENOSYS);
    }
    return fail(ENOSYS);
}

/* -- libxencall's functions -- */

static struct table *map_table(void)
{
    char path[256];
    if (standin_path(path, sizeof path, "table"))
        return NULL;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return table == MAP_FAILED ? NULL : table;
}

PUBLIC int xencall_close(xencall_handle *handle)
{
    if (handle)
        munmap(handle->table, sizeof *handle->table);
    free(handle);
    return 0;
}

PUBLIC xencall_handle *xencall_open(void *logger, unsigned flags)
{
    (void)logger, (void)flags;
    struct table *table = map_table();
    if (!table)
        return NULL;
    xencall_handle *handle = malloc(sizeof *handle);
    if (!handle)
        abort();
    *handle = (xencall_handle){.table = table, .exempt = getenv(ENV_XENSTORED) != NULL};
    int error = table->magic != TABLE_MAGIC ? EINVAL : handle->exempt ? 0 : table->refuse_open;
    if (!error)
        return handle;
    xencall_close(handle);
    errno = error;
    return NULL;
}

PUBLIC int xencall_fd(xencall_handle *handle)
{
    (void)handle;
    return -1;
}

PUBLIC int xencall_buffers_never_fault(xencall_handle *handle)
{
    (void)handle;
    return 1;
}

PUBLIC void *xencall_alloc_buffer_pages(xencall_handle *handle, size_t pages)
{
    (void)handle;
    void *buffer = aligned_alloc(PAGE, pages * PAGE);
    return buffer ? memset(buffer, 0, pages * PAGE) : NULL;
}

PUBLIC void xencall_free_buffer_pages(xencall_handle *handle, void *buffer, size_t pages)
{
    (void)handle, (void)pages;
    free(buffer);
}

PUBLIC void *xencall_alloc_buffer(xencall_handle *handle, size_t size)
{
    (void)handle;
    return calloc(1, size ? size : 1);
}

PUBLIC void xencall_free_buffer(xencall_handle *handle, void *buffer)
{
    (void)handle;
    free(buffer);
}

/* No hypercall answered here has more than two arguments; the rest of a longer one is not looked at. */
PUBLIC int xencall0(xencall_handle *handle, unsigned op)
{
    return hypercall(handle, op, 0, 0);
}

PUBLIC int xencall1(xencall_handle *handle, unsigned op, uint64_t a)
{
    return hypercall(handle, op, a, 0);
}

PUBLIC int xencall2(xencall_handle *handle, unsigned op, uint64_t a, uint64_t b)
{
    return hypercall(handle, op, a, b);
}

PUBLIC long xencall2L(xencall_handle *handle, unsigned op, uint64_t a, uint64_t b)
{
    return hypercall(handle, op, a, b);
}

PUBLIC int xencall3(xencall_handle *handle, unsigned op, uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return hypercall(handle, op, a, b);
}

PUBLIC int xencall4(xencall_handle *handle, unsigned op, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    (void)c, (void)d;
    return hypercall(handle, op, a, b);
}

PUBLIC int xencall5(xencall_handle *handle, unsigned op, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    (void)c, (void)d, (void)e;
    return hypercall(handle, op, a, b);
}
