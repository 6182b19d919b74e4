/* SPDX-License-Identifier: BSD-3-Clause
 *
 * JPEG files that consist of restart intervals (ITU-T T.81, E.1.4 and F.2.1.3.1).
 */

#include "_jpeg_intervals.h"

#include <string.h>

#define WIDTH 64 /* of an interval, in pixels */

enum { SOF0 = 0xC0, SOF1 = 0xC1, DHT = 0xC4, RST0 = 0xD0, EOI = 0xD9, SOS = 0xDA, DQT = 0xDB,
       DRI = 0xDD, APP0 = 0xE0, APP14 = 0xEE, APP15 = 0xEF, COM = 0xFE };

/* How the pixels are divided: in MCUs, and in intervals of several MCUs of a row. */
struct grid {
    JDIMENSION mcu_width, mcu_height; /* in pixels */
    JDIMENSION across, down;          /* MCUs of the image */
};

/* Intervals of a row, and rows of MCUs. */
struct part {
    JDIMENSION left, right, top, bottom;
};

/* Returns 0 where an MCU is not what the sampling factors say: a single component with factors above
 * 1 is coded block by block. */
static int read_grid(j_decompress_ptr source, struct grid *grid)
{
    int components = source->num_components;
    if (components != 3 && (components != 1 || source->max_h_samp_factor != 1 ||
                            source->max_v_samp_factor != 1))
        return 0;
    grid->mcu_width = DCTSIZE * source->max_h_samp_factor;
    grid->mcu_height = DCTSIZE * source->max_v_samp_factor;
    grid->across = (source->image_width + grid->mcu_width - 1) / grid->mcu_width;
    grid->down = (source->image_height + grid->mcu_height - 1) / grid->mcu_height;
    return 1;
}

static int has_intervals(j_decompress_ptr source, const struct grid *grid)
{
    return source->restart_interval && grid->across % source->restart_interval == 0 &&
           !source->progressive_mode && !source->arith_code &&
           source->comps_in_scan == source->num_components;
}

unsigned int missing_interval(j_decompress_ptr source)
{
    struct grid grid;
    if (!read_grid(source, &grid) || has_intervals(source, &grid))
        return 0;
    unsigned int best = 0;
    double best_ratio = 0;
    for (unsigned int count = 1; count <= grid.across; count++) {
        double width = count * grid.mcu_width;
        double ratio = width < WIDTH ? width / WIDTH : WIDTH / width;
        if (grid.across % count == 0 && ratio > best_ratio) {
            best = count;
            best_ratio = ratio;
        }
    }
    return best;
}

/* Copies the segments that the pixels need, with other dimensions; returns the bytes written, or 0
 * where the file has anything else than segments one after the other. */
static size_t copy_header(const unsigned char *data, size_t length, JDIMENSION height,
                          JDIMENSION width, unsigned char *out)
{
    size_t at = 2, written = 2;
    memcpy(out, data, 2);
    while (at + 4 <= length) {
        unsigned char marker = data[at + 1];
        size_t size = 2 + (data[at + 2] << 8 | data[at + 3]);
        if (data[at] != 0xFF || size < 4 || at + size > length)
            return 0;
        int is_frame = marker == SOF0 || marker == SOF1;
        if (is_frame || marker == DHT || marker == DQT || marker == DRI || marker == SOS ||
            marker == APP0 || marker == APP14) {
            memcpy(out + written, data + at, size);
            if (is_frame && size > 9) {
                out[written + 5] = height >> 8, out[written + 6] = height & 0xFF;
                out[written + 7] = width >> 8, out[written + 8] = width & 0xFF;
            }
            written += size;
        } else if ((marker < APP0 || marker > APP15) && marker != COM)
            return 0;
        at += size;
        if (marker == SOS)
            return at == length ? written : 0;
    }
    return 0;
}

/* Returns where an interval ends: at a marker that is not a zero stuffed after 0xFF. */
static const unsigned char *end_of_interval(const unsigned char *at, const unsigned char *end)
{
    while ((at = memchr(at, 0xFF, end - at)) && at + 1 < end) {
        if (at[1] != 0 && at[1] != 0xFF)
            return at;
        at += at[1] == 0xFF ? 1 : 2; /* any number of 0xFF may precede a marker */
    }
    return NULL;
}

/* Copies the intervals of a part; returns the bytes written, or 0 where markers are missing, out of
 * order, or others: decoding the whole file then says what is wrong with it. */
static size_t copy_intervals(const unsigned char *at, const unsigned char *end,
                             const struct part *part, JDIMENSION across, JDIMENSION down,
                             unsigned char *out)
{
    size_t written = 0;
    unsigned int copied = 0;
    unsigned long number = 0, last = (unsigned long)across * down - 1;
    for (JDIMENSION row = 0; row < part->bottom; row++)
        for (JDIMENSION column = 0; column < across; column++, number++) {
            const unsigned char *marker = end_of_interval(at, end);
            if (!marker || marker[1] != (number == last ? EOI : RST0 + number % 8))
                return 0;
            if (row >= part->top && column >= part->left && column < part->right) {
                if (copied) {
                    out[written++] = 0xFF;
                    out[written++] = RST0 + (copied - 1) % 8;
                }
                memcpy(out + written, at, marker - at);
                written += marker - at;
                copied++;
            }
            at = marker + 2;
        }
    out[written++] = 0xFF;
    out[written++] = EOI;
    return written;
}

static JDIMENSION at_most(JDIMENSION value, JDIMENSION limit)
{
    return value < limit ? value : limit;
}

unsigned char *cut_to_intervals(j_decompress_ptr source, const unsigned char *data, size_t length,
                                struct window *window, unsigned long *new_length)
{
    struct grid grid;
    JDIMENSION interval = source->restart_interval, scale = window->denominator;
    if (!read_grid(source, &grid) || !has_intervals(source, &grid))
        return NULL;
    JDIMENSION across = grid.across / interval, width = interval * grid.mcu_width;
    JDIMENSION left = window->left > MARGIN ? (window->left - MARGIN) * scale : 0;
    JDIMENSION top = window->top > MARGIN ? (window->top - MARGIN) * scale : 0;
    JDIMENSION right = (window->left + window->width + MARGIN) * scale;
    JDIMENSION bottom = (window->top + window->height + MARGIN) * scale;
    struct part part = {left / width, at_most((right + width - 1) / width, across),
                        top / grid.mcu_height,
                        at_most((bottom + grid.mcu_height - 1) / grid.mcu_height, grid.down)};
    /* What is below the window is never read, so there the whole file is as good. */
    if (part.left >= part.right || part.top >= part.bottom ||
        (part.left == 0 && part.right == across && part.top == 0))
        return NULL;

    size_t header = source->src->next_input_byte - data;
    JDIMENSION first_row = part.top * grid.mcu_height, first_column = part.left * width;
    /* It can only become shorter, but for an end that was missing. */
    unsigned char *out = source->mem->alloc_large((j_common_ptr)source, JPOOL_PERMANENT, length + 2);
    size_t copied = copy_header(
        data, header, at_most(part.bottom * grid.mcu_height, source->image_height) - first_row,
        at_most(part.right * width, source->image_width) - first_column, out);
    size_t pixels = copied ? copy_intervals(data + header, data + length, &part, across, grid.down,
                                            out + copied)
                           : 0;
    if (!pixels)
        return NULL;
    window->top -= first_row / scale; /* exact: blocks have 8 pixels, and scale is at most 8 */
    window->left -= first_column / scale;
    *new_length = copied + pixels;
    return out;
}
