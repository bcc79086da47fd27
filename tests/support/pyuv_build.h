/* What lets pyuv 1.4.0, the last there is, build unpatched on CPython 3.11 to 3.13:
 *
 *     CFLAGS="-include $PWD/tests/support/pyuv_build.h" pip install --no-cache-dir pyuv==1.4.0
 *
 * It uses three things that CPython has changed since: Py_REFCNT() as an lvalue (src/handle.c; no lvalue since 3.10),
 * the Py_UNICODE API (src/common.c; gone in 3.12) and PyEval_InitThreads() (src/pyuv.c; gone in 3.13).
 * The guard is for libuv's own files, which are compiled with the same flags and know no Python.h.
 */
#if defined(__has_include)
#if __has_include(<Python.h>)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <Python.h>

#undef Py_REFCNT
#define Py_REFCNT(object) (((PyObject *)(object))->ob_refcnt)

#undef PyUnicode_AS_UNICODE
#undef PyUnicode_GET_SIZE
#undef PyUnicode_EncodeUTF8
#define PyUnicode_AS_UNICODE(text) (text)
#define PyUnicode_GET_SIZE(text) 0
#define PyUnicode_EncodeUTF8(text, size, errors) PyUnicode_AsEncodedString((text), "utf-8", (errors))

#define PyEval_InitThreads() ((void)0)
#endif
#endif
