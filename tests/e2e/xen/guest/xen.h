/* What the guest needs of Xen's public ABI for 64-bit paravirtual guests.  Beside each: the header of xen/include/public. */

#pragma once

#define PAGE_SHIFT 12

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

/* -- hypercalls: xen.h, event_channel.h, sched.h */

enum { HYPERCALL_update_va_mapping = 14, HYPERCALL_sched_op = 29, HYPERCALL_event_channel_op = 32 };
enum { UVMF_INVLPG = 2, EVTCHNOP_send = 4, SCHEDOP_shutdown = 2, SCHEDOP_poll = 3 };
enum { SHUTDOWN_poweroff = 0, SHUTDOWN_reboot = 1, SHUTDOWN_suspend = 2, SHUTDOWN_crash = 3 };

/* For a 64-bit paravirtual guest the hypercall page holds nothing but this. */
static inline long hypercall(u64 number, u64 first, u64 second, u64 third)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result), "+D"(first), "+S"(second), "+d"(third)
                     : "a"(number)
                     : "rcx", "r11", "memory");
    return result;
}

struct sched_poll {
    const u32 *ports;
    u32 count;
    u64 deadline; /* 0: none */
};

/* -- pages that Xen hands over */

struct start_info { /* xen.h */
    char magic[32];
    u64 pages, shared_info; /* the latter a machine address */
    u32 flags;
    u64 store_frame; /* machine frames */
    u32 store_port;
    u64 console_frame;
    u32 console_port;
    u64 page_tables, page_table_frames, frame_list, module, module_size;
    char command_line[1024];
};

struct shared_info { /* xen.h; arch-x86/xen.h */
    u8 vcpus[32][64];
    u64 pending[64];
    u64 masked[64];
    u8 rest[4096 - 3072];
};

struct store_ring { /* io/xs_wire.h */
    u8 requests[1024], replies[1024];
    volatile u32 request_consumer, request_producer, reply_consumer, reply_producer;
};

struct store_header { /* io/xs_wire.h */
    u32 type, request, transaction, length;
};

enum { XS_READ = 2, XS_WATCH = 4, XS_WRITE = 11, XS_WATCH_EVENT = 15, XS_ERROR = 16 };

struct console_ring { /* io/console.h */
    u8 in[1024], out[2048];
    volatile u32 in_consumer, in_producer, out_consumer, out_producer;
};

/* A frame's number as the guest counts, by the machine's: xen.h, MACH2PHYS_VIRT_START. */
static inline void *mapped(u64 machine_frame)
{
    const u64 *const machine_to_physical = (const u64 *)0xffff800000000000UL;
    return (void *)(machine_to_physical[machine_frame] << PAGE_SHIFT);
}
