/* Where Xen starts the guest, and the ELF notes by which Xen's domain builder knows it for one: see guest.c.

   The notes are those of xen/include/public/elfnote.h.  A note is three lengths and numbers, the owner's name, and a
   descriptor that is a string or a 64-bit number. */

.macro note type, kind, descriptor:vararg
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \kind \descriptor
2:  .balign 4
    .popsection
.endm

    note 1, .quad, _start           /* ENTRY */
    note 3, .quad, 0                /* VIRT_BASE: a pseudo-physical address is the virtual one too */
    note 4, .quad, 0                /* PADDR_OFFSET */
    note 5, .asciz, "xen-3.0"       /* XEN_VERSION: the ABI, not the release */
    note 6, .asciz, "eventbridge"   /* GUEST_OS */
    note 8, .asciz, "generic"       /* LOADER */
    note 9, .asciz, "yes"           /* PAE_MODE, asked of 64-bit guests too */

    .section .text.start, "ax"
    .globl _start
_start:                             /* Xen leaves the start info's address in rsi */
    cld
    lea stack_end(%rip), %rsp
    mov %rsi, %rdi
    call guest_main
    ud2                             /* it never returns */

    .bss
    .balign 16
    .skip 16384
stack_end:

    .section .note.GNU-stack, "", @progbits
