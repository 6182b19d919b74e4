/* SPDX-License-Identifier: BSD-3-Clause */

#ifndef MLIMAGES_JPEG_INTERVALS_H
#define MLIMAGES_JPEG_INTERVALS_H

#include <stdio.h>

#include <jpeglib.h>

/* Smoothing across blocks looks one sample of colour further, at most 4 pixels; with this margin
 * the pixels of a window equal those of the whole image. */
#define MARGIN 4

/* A part of an image decoded at 1 / denominator of its size, in pixels of that size. */
struct window {
    int denominator;
    JDIMENSION top, left, height, width;
};

/* Cuts a file to the restart intervals that a window needs.
 *
 * A restart interval can be decoded on its own. Where intervals divide the rows of blocks evenly,
 * those around a window, with new dimensions in the frame header and renumbered markers between
 * them, are a JPEG file whose pixels are those of this part of the image; nothing is decoded.
 *
 * source: its header has been read from `data` up to the pixels.
 * window: is moved to where it lies in the smaller image.
 *
 * Returns the file and its length; it belongs to `source` until that is destroyed. NULL if the file
 * has no such intervals or the window needs nearly all of them; `window` is then unchanged. */
unsigned char *cut_to_intervals(j_decompress_ptr source, const unsigned char *data, size_t length,
                                struct window *window, unsigned long *new_length);

/* Returns the number of MCUs for the intervals of a file that has none to cut by: they divide a row
 * evenly and are about 64 pixels wide, which makes files 1% larger. 0 if the file has intervals, or
 * cannot have such. */
unsigned int missing_interval(j_decompress_ptr source);

#endif
