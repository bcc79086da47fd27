/* A stand-in for libxl 4.1, which no distribution ships: its event interface and the calls beside it, with its
 * semantics, over the real libxenstore and libxenctrl (and so, in the tests, over the hypercall stand-in).
 *
 * The shapes and the behaviour are those of Xen 4.1's public libxl.h; the comments name what a caller must not rely on.
 * What is not 4.1's is libxl41_standin_counts(), by which the tests see what was made and what was freed. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <xenctrl.h>
#include <xenstore.h>

#define EXPORT __attribute__((visibility("default")))
#define ERROR_VERSION (-2)
#define ERROR_FAIL (-3)
#define ERROR_INVAL (-6)
#define MOST_DOMAINS 1024 /* of one list, in 4.1 */

typedef enum { EVENT_DOMAIN_DEATH, EVENT_DISK_EJECT } event_type;
typedef struct { event_type type; char *path, *token; } libxl_event;
typedef struct { char *path, *token; } libxl_waiter;
typedef struct {
    int major, minor;
    char *text[7];
    unsigned long virt_start, pagesize;
    char *commandline;
} libxl_version_info;
typedef struct {
    void *lg;
    xc_interface *xch;
    struct xs_handle *xsh;
    int (*waitpid_instead)(pid_t, int *, int);
    libxl_version_info version_info;
} libxl_ctx;
typedef struct {
    uint8_t uuid[16];
    uint32_t domid;
    uint8_t running : 1, blocked : 1, paused : 1, shutdown : 1, dying : 1;
    uint32_t shutdown_reason;
    uint64_t current_memkb, max_memkb, cpu_time;
    uint32_t vcpu_max_id, vcpu_online;
} libxl_dominfo;
typedef struct {
    uint32_t backend_domid, domid;
    char *pdev_path, *vdev;
    int backend, format, unpluggable, readwrite, is_cdrom;
} libxl_device_disk;

_Static_assert(sizeof(libxl_event) == 24 && sizeof(libxl_waiter) == 16, "the shapes of 4.1");
_Static_assert(sizeof(libxl_ctx) == 136 || sizeof(libxl_ctx) == 120, "the shapes of 4.1");
_Static_assert(sizeof(libxl_dominfo) == 64 && sizeof(libxl_device_disk) == 48, "the shapes of 4.1");

/* What there is now of each; the order in which a ctx was taken down. */
static struct counts { int ctxs, waiters, events, gets, stale_ctx_free; } counts;

EXPORT const struct counts *libxl41_standin_counts(void) { return &counts; }

static char *read_path(libxl_ctx *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));
static char *read_path(libxl_ctx *ctx, const char *format, ...)
{
    char path[512];
    unsigned length;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    return xs_read(ctx->xsh, XBT_NULL, path, &length); /* libxenstore ends it with a NUL */
}

EXPORT int libxl_ctx_init(libxl_ctx *ctx, int version, void *lg)
{
    if (version != 0)
        return ERROR_VERSION;
    memset(ctx, 0, sizeof *ctx);
    ctx->lg = lg;
    ctx->xch = xc_interface_open(lg, lg, 0);
    ctx->xsh = ctx->xch ? xs_open(0) : NULL;
    if (!ctx->xsh) {
        if (ctx->xch)
            xc_interface_close(ctx->xch);
        return ERROR_FAIL;
    }
    counts.ctxs++;
    return 0;
}

EXPORT int libxl_ctx_free(libxl_ctx *ctx)
{
    if (counts.ctxs == 1 && counts.waiters)
        counts.stale_ctx_free++; /* freed before the waiters that point into it */
    xc_interface_close(ctx->xch);
    xs_close(ctx->xsh);
    counts.ctxs--;
    return 0;
}

EXPORT int libxl_get_wait_fd(libxl_ctx *ctx, int *fd)
{
    *fd = xs_fileno(ctx->xsh);
    return 0;
}

/* As 4.1: the waiter is filled in before the watch is asked for, and stays so where that fails (EEXIST). */
static int wait_for(libxl_ctx *ctx, libxl_waiter *waiter, char *path, event_type type)
{
    waiter->path = path;
    if (asprintf(&waiter->token, "%d", type) < 0)
        abort();
    counts.waiters++;
    return xs_watch(ctx->xsh, waiter->path, waiter->token) ? 0 : -1;
}

EXPORT int libxl_wait_for_domain_death(libxl_ctx *ctx, uint32_t domid, libxl_waiter *waiter)
{
    (void)domid; /* it is not recorded: every announcement wakes every waiter */
    return wait_for(ctx, waiter, strdup("@releaseDomain"), EVENT_DOMAIN_DEATH);
}

static int vbd_number(const char *vdev)
{
    /* Xen's docs/misc/vbd-interface.txt, for whole disks "hdX" and "xvdX" */
    if (!strncmp(vdev, "hd", 2)) {
        int disk = vdev[2] - 'a';
        return disk < 2 ? (3 << 8) | (disk << 6) : (22 << 8) | ((disk - 2) << 6);
    }
    return (202 << 8) | ((vdev[3] - 'a') << 4);
}

EXPORT int libxl_wait_for_disk_ejects(
    libxl_ctx *ctx, uint32_t domid, libxl_device_disk *disks, int count, libxl_waiter *waiters)
{
    for (int i = 0; i < count; i++) {
        char *path;
        if (asprintf(&path, "/local/domain/%u/device/vbd/%d/eject", domid, vbd_number(disks[i].vdev)) < 0)
            abort();
        wait_for(ctx, &waiters[i], path, EVENT_DISK_EJECT);
    }
    return 0;
}

EXPORT int libxl_get_event(libxl_ctx *ctx, libxl_event *event)
{
    unsigned count;
    char **watched = xs_read_watch(ctx->xsh, &count); /* blocks while there is none */
    counts.gets++;
    if (!watched)
        return ERROR_FAIL;
    event->path = strdup(watched[XS_WATCH_PATH]);
    event->token = strdup(watched[XS_WATCH_TOKEN]);
    event->type = atoi(event->token);
    counts.events++;
    free(watched);
    return 0;
}

EXPORT int libxl_stop_waiting(libxl_ctx *ctx, libxl_waiter *waiter)
{
    return xs_unwatch(ctx->xsh, waiter->path, waiter->token) ? 0 : ERROR_FAIL; /* what is queued stays so */
}

EXPORT int libxl_free_event(libxl_event *event)
{
    free(event->path);
    free(event->token);
    counts.events--;
    return 0;
}

EXPORT int libxl_free_waiter(libxl_waiter *waiter)
{
    free(waiter->path);
    free(waiter->token);
    counts.waiters--;
    return 0;
}

static void describe(const xc_domaininfo_t *from, libxl_dominfo *to)
{
    memset(to, 0, sizeof *to);
    memcpy(to->uuid, from->handle, sizeof to->uuid);
    to->domid = from->domain;
    to->dying = !!(from->flags & XEN_DOMINF_dying);
    to->shutdown = !!(from->flags & XEN_DOMINF_shutdown);
    to->paused = !!(from->flags & XEN_DOMINF_paused);
    to->blocked = !!(from->flags & XEN_DOMINF_blocked);
    to->running = !!(from->flags & XEN_DOMINF_running);
    to->shutdown_reason = to->shutdown ? (from->flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask : ~0u;
    to->current_memkb = from->tot_pages * 4;
    to->max_memkb = from->max_pages * 4;
    to->cpu_time = from->cpu_time;
    to->vcpu_max_id = from->max_vcpu_id;
    to->vcpu_online = from->nr_online_vcpus;
}

EXPORT int libxl_domain_info(libxl_ctx *ctx, libxl_dominfo *info, uint32_t domid)
{
    xc_domaininfo_t found;
    int count = xc_domain_getinfolist(ctx->xch, domid, 1, &found);
    if (count < 0)
        return ERROR_FAIL;
    if (count == 0 || found.domain != domid)
        return ERROR_INVAL;
    describe(&found, info);
    return 0;
}

EXPORT libxl_dominfo *libxl_list_domain(libxl_ctx *ctx, int *count)
{
    static __thread xc_domaininfo_t found[MOST_DOMAINS];
    *count = xc_domain_getinfolist(ctx->xch, 0, MOST_DOMAINS, found);
    if (*count < 0)
        return NULL;
    libxl_dominfo *list = calloc(*count + 1, sizeof *list);
    for (int i = 0; list && i < *count; i++)
        describe(&found[i], &list[i]);
    return list;
}

EXPORT int libxl_event_get_domain_death_info(libxl_ctx *ctx, uint32_t domid, libxl_event *event, libxl_dominfo *info)
{
    if (!event || event->type != EVENT_DOMAIN_DEATH)
        return 0;
    if (libxl_domain_info(ctx, info, domid))
        return 0; /* it is gone */
    return info->shutdown || info->dying ? 1 : ERROR_INVAL;
}

EXPORT int libxl_event_get_disk_eject_info(
    libxl_ctx *ctx, uint32_t domid, libxl_event *event, libxl_device_disk *disk)
{
    if (!event || event->type != EVENT_DISK_EJECT)
        return 0;
    char *value = read_path(ctx, "%s", event->path);
    int ejected = value && !strcmp(value, "eject");
    free(value);
    if (!ejected)
        return 0;
    memset(disk, 0, sizeof *disk);
    char *backend = read_path(ctx, "%.*s/backend", (int)(strlen(event->path) - strlen("/eject")), event->path);
    disk->domid = domid;
    disk->pdev_path = strdup("");
    disk->vdev = read_path(ctx, "%s/dev", backend ? backend : "");
    disk->unpluggable = disk->is_cdrom = 1;
    free(backend);
    return 1;
}

EXPORT libxl_device_disk *libxl_device_disk_list(libxl_ctx *ctx, uint32_t domid, int *count)
{
    char path[128];
    unsigned found = 0;
    snprintf(path, sizeof path, "/local/domain/%u/device/vbd", domid);
    char **names = xs_directory(ctx->xsh, XBT_NULL, path, &found);
    libxl_device_disk *disks = calloc(found + 1, sizeof *disks);
    *count = 0;
    for (unsigned i = 0; disks && i < found; i++) {
        char *backend = read_path(ctx, "%s/%s/backend", path, names[i]);
        char *type = read_path(ctx, "%s/%s/device-type", path, names[i]);
        libxl_device_disk *disk = &disks[(*count)++];
        disk->domid = domid;
        disk->pdev_path = read_path(ctx, "%s/params", backend ? backend : "");
        disk->vdev = read_path(ctx, "%s/dev", backend ? backend : "");
        disk->is_cdrom = disk->unpluggable = type && !strcmp(type, "cdrom");
        free(backend);
        free(type);
    }
    free(names);
    return disks;
}

EXPORT char *libxl_domid_to_name(libxl_ctx *ctx, uint32_t domid)
{
    return read_path(ctx, "/local/domain/%u/name", domid);
}

EXPORT int libxl_domain_pause(libxl_ctx *ctx, uint32_t domid)
{
    return xc_domain_pause(ctx->xch, domid) ? ERROR_FAIL : 0;
}

EXPORT int libxl_domain_unpause(libxl_ctx *ctx, uint32_t domid)
{
    return xc_domain_unpause(ctx->xch, domid) ? ERROR_FAIL : 0;
}

EXPORT int libxl_domain_shutdown(libxl_ctx *ctx, uint32_t domid, int request)
{
    static const char *const words[] = {"poweroff", "reboot", "suspend", "crash", "halt"};
    char path[128];
    if (request < 0 || request > 4)
        return ERROR_INVAL;
    snprintf(path, sizeof path, "/local/domain/%u/control/shutdown", domid);
    return xs_write(ctx->xsh, XBT_NULL, path, words[request], strlen(words[request])) ? 0 : ERROR_FAIL;
}

EXPORT int libxl_domain_destroy(libxl_ctx *ctx, uint32_t domid, int force)
{
    char path[128];
    (void)force;
    libxl_dominfo info;
    if (libxl_domain_info(ctx, &info, domid))
        return ERROR_INVAL;
    if (xc_domain_destroy(ctx->xch, domid))
        return ERROR_FAIL;
    snprintf(path, sizeof path, "/local/domain/%u", domid);
    xs_rm(ctx->xsh, XBT_NULL, path);
    return 0;
}
