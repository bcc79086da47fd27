/* The stand-in's table of domains: a file that every process on one stand-in maps, and that the test writes.
 *
 * It holds a slot for every domid that Xen can give, so a look-up is an index; it is sparse, so what is not used costs
 * nothing.  standin.py packs the same layout (native byte order, no padding).  Fields are single words, written by one
 * side at a time; a slot becomes visible by `present`, written last. */
#ifndef EVENTBRIDGE_STANDIN_TABLE_H
#define EVENTBRIDGE_STANDIN_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define TABLE_MAGIC   0x45425854u
#define TABLE_DOMAINS 32768u /* DOMID_FIRST_RESERVED is 0x7ff0 */

/* The directory of one stand-in: its "table", the fifo "virq", and "root" below which Xen's own directories are. */
#define ENV_DIRECTORY "EVENTBRIDGE_STANDIN"
/* Set for xenstored alone: its hypercalls are never refused, and it finds what Linux would tell of dom0's xenstore. */
#define ENV_XENSTORED "EVENTBRIDGE_STANDIN_XENSTORED"

struct domain {
    uint32_t present;
    uint32_t flags; /* XEN_DOMINF_*, and the shutdown's reason << XEN_DOMINF_shutdownshift */
    uint32_t vcpus;
    uint32_t ssidref;
    uint64_t pages;
    uint64_t max_pages;
    uint64_t cpu_time; /* ns */
    uint8_t  uuid[16];
    uint64_t reserved;
};

struct table {
    uint32_t magic;
    uint32_t limit;        /* no domid from here on is in use */
    int32_t  refuse_open;  /* the errno with which /dev/xen/privcmd refuses to open, or 0 */
    int32_t  refuse_calls; /* the errno with which each hypercall fails, or 0 */
    uint8_t  reserved[48];
    struct domain domain[TABLE_DOMAINS];
};

_Static_assert(sizeof(struct domain) == 64 && offsetof(struct table, domain) == 64, "standin.py packs this layout");

/* The path of a file in the stand-in's directory; -1 and ENOENT, as without Xen, where no stand-in is named. */
int standin_path(char *buffer, size_t size, const char *name);

#endif
