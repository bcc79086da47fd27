/* A guest for the tests: the least that Xen takes for a paravirtual domain, up in milliseconds and content with 8 MB.

   It says "guest up: COMMAND LINE" on its console, echoes what is typed there, and does what control/shutdown tells it.
   Words on its command line change that:
     exit=REASON  it stops at once, for poweroff, reboot or crash
     deaf         it never answers control/shutdown, as a guest that hangs; its console goes on

   No interrupts: every event channel stays masked, and SCHEDOP_poll sleeps until one of our two is pending.  It cannot
   be suspended, for it keeps no list of its frames for who saves it. */

#include "xen.h"

static struct shared_info shared __attribute__((aligned(1 << PAGE_SHIFT))); /* Xen's page is mapped over it */
static struct start_info *start;
static struct store_ring *store;
static struct console_ring *console;
static u32 watch_events; /* that came and were not looked into */

static const char SHUTDOWN_NODE[] = "control/shutdown";

static const struct {
    const char *word;
    u32 reason;
} REASONS[] = {
    {"poweroff", SHUTDOWN_poweroff},
    {"halt", SHUTDOWN_poweroff},
    {"reboot", SHUTDOWN_reboot},
    {"crash", SHUTDOWN_crash},
};

/* -- texts */

static u32 length(const char *text)
{
    u32 count = 0;
    while (text[count])
        count++;
    return count;
}

static int begins(const char *text, const char *with)
{
    while (*with)
        if (*text++ != *with++)
            return 0;
    return 1;
}

/* What follows a word on the command line, or null where it is not there. */
static const char *option(const char *word)
{
    for (const char *at = start->command_line; *at; at++)
        if (begins(at, word))
            return at + length(word);
    return 0;
}

/* -- event channels */

static void barrier(void)
{
    __asm__ volatile("mfence" ::: "memory");
}

static void notify(u32 port)
{
    hypercall(HYPERCALL_event_channel_op, EVTCHNOP_send, (u64)&port, 0);
}

/* Sleep until the other end of a ring has done something.  What it did before the last call's return may be told again:
   whoever waits looks at the ring once more and comes back. */
static void wait(void)
{
    const u32 ports[] = {start->store_port, start->console_port};
    const struct sched_poll poll = {ports, 2, 0};
    hypercall(HYPERCALL_sched_op, SCHEDOP_poll, (u64)&poll, 0);
    for (int i = 0; i < 2; i++)
        __asm__ volatile("lock btrq %1, %0" : "+m"(shared.pending) : "r"((u64)ports[i]) : "memory");
}

static void stop(u32 reason)
{
    for (;;)
        hypercall(HYPERCALL_sched_op, SCHEDOP_shutdown, (u64)&reason, 0);
}

/* -- the console */

static void console_put(u8 byte)
{
    while (console->out_producer - console->out_consumer == sizeof console->out) {
        notify(start->console_port); /* who is to make room may not know yet that it is full */
        wait();
    }
    console->out[console->out_producer % sizeof console->out] = byte;
    barrier(); /* the byte is there before it is announced */
    console->out_producer++;
}

static void say(const char *text)
{
    while (*text)
        console_put(*text++);
    notify(start->console_port);
}

static void echo(void)
{
    if (console->in_consumer == console->in_producer)
        return;
    while (console->in_consumer != console->in_producer) {
        barrier();
        console_put(console->in[console->in_consumer % sizeof console->in]);
        console->in_consumer++;
    }
    notify(start->console_port); /* there is something to read, and room to write */
}

/* -- xenstore */

static void store_send(const void *data, u32 size)
{
    for (const u8 *at = data; size--; at++) {
        while (store->request_producer - store->request_consumer == sizeof store->requests) {
            notify(start->store_port);
            wait();
        }
        store->requests[store->request_producer % sizeof store->requests] = *at;
        barrier();
        store->request_producer++;
    }
}

static void store_receive(void *data, u32 size)
{
    for (u8 *at = data; size--; at++) {
        while (store->reply_producer == store->reply_consumer)
            wait();
        barrier();
        *at = store->replies[store->reply_consumer % sizeof store->replies];
        barrier();
        store->reply_consumer++;
    }
    notify(start->store_port);
}

/* One message, whose text replaces what was in `text`; a watch event is counted. */
static u32 store_message(char *text)
{
    struct store_header header;
    store_receive(&header, sizeof header);
    store_receive(text, header.length);
    text[header.length] = 0;
    if (header.type == XS_WATCH_EVENT)
        watch_events++;
    return header.type;
}

/* Ask, and wait for the answer; 0 where xenstored refuses. */
static int store_ask(u32 type, const char *payload, u32 size, char *answer)
{
    const struct store_header header = {type, 0, 0, size};
    u32 got;
    store_send(&header, sizeof header);
    store_send(payload, size);
    notify(start->store_port);
    do
        got = store_message(answer);
    while (got == XS_WATCH_EVENT);
    return got != XS_ERROR;
}

/* -- what it does */

static void stop_for(const char *word)
{
    for (u32 i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
        if (begins(word, REASONS[i].word))
            stop(REASONS[i].reason);
}

static void obey(char *text)
{
    static char ignored[4097];
    watch_events = 0;
    if (!store_ask(XS_READ, SHUTDOWN_NODE, sizeof SHUTDOWN_NODE, text) || !*text)
        return;
    say("told to ");
    say(text);
    say("\r\n");
    store_ask(XS_WRITE, SHUTDOWN_NODE, sizeof SHUTDOWN_NODE, ignored); /* written empty: the toolstack sees it heard */
    stop_for(text);
}

void guest_main(struct start_info *given)
{
    static char text[4097]; /* a message of xenstored's is at most 4096 bytes long */
    static const char watch[] = "control/shutdown\0t";
    const char *reason;

    start = given;
    hypercall(HYPERCALL_update_va_mapping, (u64)&shared, start->shared_info | 7, UVMF_INVLPG);
    for (u32 i = 0; i < 64; i++)
        shared.masked[i] = ~0UL;
    store = mapped(start->store_frame);
    console = mapped(start->console_frame);

    say("guest up: ");
    say(start->command_line);
    say("\r\n");
    if ((reason = option("exit=")))
        stop_for(reason);
    if (!option("deaf"))
        store_ask(XS_WATCH, watch, sizeof watch, text);
    for (;;) {
        echo();
        while (store->reply_producer != store->reply_consumer)
            store_message(text);
        if (watch_events)
            obey(text);
        else
            wait();
    }
}
