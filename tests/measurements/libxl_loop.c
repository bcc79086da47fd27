/* libxl's own event loop, as its header recommends it to simple programs: beforepoll, poll, afterpoll, event_check.
 *
 * What the bridge is measured beside: the least that a program in C can do for the same events.  It is told what to do
 * by lines on standard input, and answers each on standard output:
 *
 *   follow FIRST COUNT   ask for the shutdown and death of these domids           -> ready
 *   await N              until so many events more have come                       -> done CPU-SECONDS
 *
 * build: gcc -O2 -o libxl_loop libxl_loop.c -lxenlight -lxentoollog */
#include <libxl.h>
#include <libxl_event.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>
#include <xentoollog.h>

#define DOMIDS 32768
#define FDS 64

static libxl_ctx *ctx;
static libxl_evgen_domain_death *followed[DOMIDS];
static long awaited = -1, events;
static double cpu_before;

static double cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void answer_if_done(void)
{
    if (awaited < 0 || events < awaited)
        return;
    printf("done %.6f\n", cpu() - cpu_before);
    fflush(stdout);
    events -= awaited;
    awaited = -1;
    cpu_before = cpu();
}

static void follow(unsigned first, unsigned count)
{
    for (unsigned domid = first; domid < first + count && domid < DOMIDS; domid++)
        if (libxl_evenable_domain_death(ctx, domid, domid, &followed[domid]))
            exit(1);
    puts("ready");
    fflush(stdout);
    cpu_before = cpu();
}

static void take_events(void)
{
    libxl_event *event;
    while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
        events++;
        if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH) {
            libxl_evdisable_domain_death(ctx, followed[event->domid]);
            followed[event->domid] = NULL;
        }
        libxl_event_free(ctx, event);
    }
}

/* 0 at the end of standard input */
static int take_command(void)
{
    char line[128];
    unsigned first, count;
    if (!fgets(line, sizeof line, stdin))
        return 0;
    if (sscanf(line, "follow %u %u", &first, &count) == 2)
        follow(first, count);
    else if (sscanf(line, "await %ld", &awaited) != 1)
        exit(2);
    return 1;
}

int main(void)
{
    xentoollog_logger *logger = (void *)xtl_createlogger_stdiostream(stderr, XTL_ERROR, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* what poll() does not see must not wait in a buffer */
    if (!logger || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger))
        return 1;
    for (;;) {
        struct pollfd fds[FDS] = {{.fd = STDIN_FILENO, .events = POLLIN}};
        struct timeval now;
        int count = FDS - 1, timeout = -1;
        gettimeofday(&now, NULL);
        if (libxl_osevent_beforepoll(ctx, &count, fds + 1, &timeout, now))
            return 1;
        if (poll(fds, count + 1, timeout) < 0)
            return 1;
        gettimeofday(&now, NULL);
        libxl_osevent_afterpoll(ctx, count, fds + 1, now);
        take_events();
        if (fds[0].revents && !take_command())
            break;
        answer_if_done();
    }
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return 0;
}
