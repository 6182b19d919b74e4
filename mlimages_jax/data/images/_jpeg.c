/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Two things that libjpeg-turbo can do and no Python package offers: decode a window of an image,
 * and rewrite a file without loss, as a sequential one or in intervals. See _jpeg.pyi and jpeg.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "_jpeg_intervals.h"

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2000000
#error "libjpeg-turbo 2.0 or newer is needed (libjpeg62-turbo-dev, libjpeg-turbo8-dev)"
#endif

#define ROWS 16 /* a call: one by one, reading takes a fifth longer */

struct failure {
    struct jpeg_error_mgr manager;
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
};

static void fail(j_common_ptr common)
{
    struct failure *failure = (struct failure *)common->err;
    common->err->format_message(common, failure->text);
    longjmp(failure->jump, 1);
}

static void fail_on_warning(j_common_ptr common, int level)
{
    if (level < 0)
        fail(common);
}

static struct jpeg_error_mgr *errors(struct failure *failure)
{
    struct jpeg_error_mgr *manager = jpeg_std_error(&failure->manager);
    manager->error_exit = fail;
    manager->emit_message = fail_on_warning;
    failure->text[0] = 0;
    return manager;
}

/* Reads the header and refuses what Python's gate (jpeg_markers.py) refuses. The first coefficient of
 * a scan lies behind its last in lossless files only, where it is the number of a predictor. */
static void read_header(struct jpeg_decompress_struct *source, struct failure *failure)
{
    jpeg_read_header(source, TRUE);
    if (source->data_precision != 8 || source->Ss > source->Se) {
        snprintf(failure->text, sizeof failure->text, "Unsupported JPEG process");
        longjmp(failure->jump, 1);
    }
}

/* Decodes into rows of `stride` bytes; returns the column where the window begins, -1 on failure.
 * `window` is changed. */
static long decode(const unsigned char *data, size_t length, struct window *window,
                   unsigned char *out, size_t stride, struct failure *failure)
{
    struct jpeg_decompress_struct source;
    source.err = errors(failure);
    if (setjmp(failure->jump)) {
        jpeg_destroy_decompress(&source);
        return -1;
    }
    jpeg_create_decompress(&source);
    jpeg_mem_src(&source, data, length);
    read_header(&source, failure);
    unsigned long cut_length;
    unsigned char *cut = cut_to_intervals(&source, data, length, window, &cut_length);
    if (cut) {
        jpeg_abort_decompress(&source);
        jpeg_mem_src(&source, cut, cut_length);
        read_header(&source, failure);
    }
    source.out_color_space = JCS_RGB;
    source.scale_num = 1;
    source.scale_denom = window->denominator;
    source.dct_method = JDCT_ISLOW;
    source.do_fancy_upsampling = TRUE;
    jpeg_start_decompress(&source);

    JDIMENSION first = window->left > MARGIN ? window->left - MARGIN : 0;
    JDIMENSION end = window->left + window->width;
    if (end > source.output_width || window->top + window->height > source.output_height)
        ERREXIT(&source, JERR_WIDTH_OVERFLOW);
    end = end + MARGIN < source.output_width ? end + MARGIN : source.output_width;
    JDIMENSION columns = end - first;
    if (columns < source.output_width)
        jpeg_crop_scanline(&source, &first, &columns); /* moves `first` to the edge of a block */
    if ((size_t)columns * 3 > stride)
        ERREXIT(&source, JERR_WIDTH_OVERFLOW);
    if (window->top)
        jpeg_skip_scanlines(&source, window->top);
    for (JDIMENSION done = 0; done < window->height;) {
        JSAMPROW rows[ROWS];
        JDIMENSION left = window->height - done, count = left < ROWS ? left : ROWS;
        for (JDIMENSION i = 0; i < count; i++)
            rows[i] = out + (done + i) * stride;
        done += jpeg_read_scanlines(&source, rows, count);
    }
    if (source.output_scanline == source.output_height)
        jpeg_finish_decompress(&source); /* warns where the end is amiss */
    jpeg_destroy_decompress(&source);
    return (long)(window->left - first);
}

static int is_side(Py_ssize_t pixels, Py_ssize_t least)
{
    return pixels >= least && pixels <= JPEG_MAX_DIMENSION;
}

static PyObject *decode_window(PyObject *module, PyObject *arguments)
{
    Py_buffer data, out;
    int denominator;
    Py_ssize_t top, left, height, width;
    if (!PyArg_ParseTuple(arguments, "y*innnnw*", &data, &denominator, &top, &left, &height, &width,
                          &out))
        return NULL;
    struct failure failure;
    long column = -1;
    if (!is_side(height, 1) || !is_side(width, 1) || !is_side(top, 0) || !is_side(left, 0))
        snprintf(failure.text, sizeof failure.text, "no window of any JPEG");
    else if (out.len % height)
        snprintf(failure.text, sizeof failure.text, "the result has other rows than the window");
    else {
        struct window window = {denominator, top, left, height, width};
        Py_BEGIN_ALLOW_THREADS
        column = decode(data.buf, data.len, &window, out.buf, out.len / height, &failure);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    if (column < 0) {
        PyErr_SetString(PyExc_ValueError, failure.text);
        return NULL;
    }
    return PyLong_FromLong(column);
}

/* The markers that the encoder does not write by itself: EXIF, colour profile, comments. */
static void copy_markers(j_decompress_ptr source, j_compress_ptr target)
{
    for (jpeg_saved_marker_ptr marker = source->marker_list; marker; marker = marker->next) {
        int jfif = marker->marker == JPEG_APP0 && marker->data_length >= 5 &&
                   !memcmp(marker->data, "JFIF", 5);
        int adobe = marker->marker == JPEG_APP0 + 14 && marker->data_length >= 5 &&
                    !memcmp(marker->data, "Adobe", 5);
        if ((jfif && target->write_JFIF_header) || (adobe && target->write_Adobe_marker))
            continue;
        jpeg_write_marker(target, marker->marker, marker->data, marker->data_length);
    }
}

/* Rewrites a file that is progressive, or lacks the intervals asked for; 1 when done, 0 when there is
 * nothing to do, -1 on failure.
 * `out` and `out_length` come with a buffer. Where it did not suffice, the library puts its own in
 * the place, but only once it is done: after a failure `out` is still the given one. */
static int rewrite(const unsigned char *data, size_t length, int in_intervals, unsigned char **out,
                   unsigned long *out_length, struct failure *failure)
{
    struct jpeg_decompress_struct source;
    struct jpeg_compress_struct target;
    source.err = target.err = errors(failure);
    memset(&target.mem, 0, sizeof target.mem); /* so that it can be destroyed before its creation */
    if (setjmp(failure->jump)) {
        jpeg_destroy_decompress(&source);
        jpeg_destroy((j_common_ptr)&target);
        return -1;
    }
    jpeg_create_decompress(&source);
    jpeg_mem_src(&source, data, length);
    jpeg_save_markers(&source, JPEG_COM, 0xFFFF);
    for (int i = 0; i < 16; i++)
        jpeg_save_markers(&source, JPEG_APP0 + i, 0xFFFF);
    read_header(&source, failure);
    unsigned int interval = in_intervals ? missing_interval(&source) : 0;
    int wanted = source.progressive_mode || interval;
    if (wanted) {
        jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&source);
        jpeg_create_compress(&target);
        jpeg_mem_dest(&target, out, out_length);
        jpeg_copy_critical_parameters(&source, &target);
        target.optimize_coding = TRUE;
        target.restart_interval = interval;
        jpeg_write_coefficients(&target, coefficients);
        copy_markers(&source, &target);
        jpeg_finish_compress(&target);
        jpeg_destroy_compress(&target);
        jpeg_finish_decompress(&source);
    }
    jpeg_destroy_decompress(&source);
    return wanted != 0;
}

static PyObject *rewritten(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    int in_intervals;
    if (!PyArg_ParseTuple(arguments, "y*p", &data, &in_intervals))
        return NULL;
    unsigned long length = 2 * data.len + (1 << 16);
    unsigned char *given = malloc(length), *out = given;
    if (!given) {
        PyBuffer_Release(&data);
        return PyErr_NoMemory();
    }
    struct failure failure;
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = rewrite(data.buf, data.len, in_intervals, &out, &length, &failure);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    PyObject *result = NULL;
    if (done < 0)
        PyErr_SetString(PyExc_ValueError, failure.text);
    else if (!done)
        result = Py_NewRef(Py_None);
    else
        result = PyBytes_FromStringAndSize((char *)out, length);
    if (out != given)
        free(out);
    free(given);
    return result;
}

static PyMethodDef methods[] = {
    {"decode_window", decode_window, METH_VARARGS, "See _jpeg.pyi."},
    {"rewritten", rewritten, METH_VARARGS, "See _jpeg.pyi."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_jpeg",
    .m_doc = "Windows of JPEG files, and their rewriting.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__jpeg(void)
{
    return PyModule_Create(&definition);
}
