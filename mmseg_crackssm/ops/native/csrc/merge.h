/* What a decoder level reads: the coarser map resized, the finer one beside
 * it, and the gate on both; and the gradients. A template like vector.h. */

/* Where bilinear resizing reads along one side: (1 - share) of the number at
 * `first` and `share` of the one at `second`. */
typedef struct {
    int64_t first, second;
    real share;
} NAME(sample);

/* Without aligned corners, as PyTorch counts. */
INLINE NAME(sample) NAME(sample_at)(int64_t i, int64_t from, int64_t to)
{
    const real half = (real)0.5;
    real place = ((real)i + half) * ((real)from / (real)to) - half;
    if (place < 0)
        place = 0;
    const int64_t first = smaller((int64_t)place, from - 1);
    return (NAME(sample)){
        .first = first,
        .second = smaller(first + 1, from - 1),
        .share = place - (real)first,
    };
}

/* A thread's scratch. */
typedef struct {
    real *blended;          /* a row of x, resized along the height */
    real *gradient;         /* of that row, in the backward */
    NAME(sample) *columns;  /* where each column of y reads in it */
} NAME(merge_scratch);

static size_t NAME(merge_scratch_bytes)(const merge_call *call)
{
    return (size_t)(2 * call->width * call->x_channels) * sizeof(real) +
           (size_t)call->out_width * sizeof(NAME(sample));
}

static NAME(merge_scratch) NAME(lay_out)(const merge_call *call,
                                         void *scratch)
{
    const int64_t row = call->width * call->x_channels;
    NAME(merge_scratch) parts = {.columns = scratch};
    for (int64_t q = 0; q < call->out_width; q++)
        parts.columns[q] =
            NAME(sample_at)(q, call->width, call->out_width);
    parts.blended = (real *)(parts.columns + call->out_width);
    parts.gradient = parts.blended + row;
    return parts;
}

INLINE void NAME(blend_part)(const real *first, const real *second,
                             real share, real *to, int64_t part)
{
    vec x = (1 - share) * NAME(load_part)(first, part) +
            share * NAME(load_part)(second, part);
    NAME(store_part)(to, x, part);
}

/* A row of x as y reads it at one of its rows. */
static void NAME(blend_rows)(const merge_call *call, int64_t batch,
                             NAME(sample) at, real *to)
{
    const int64_t row = call->width * call->x_channels;
    const real *x = (const real *)call->x + batch * call->height * row;
    const real *first = x + at.first * row, *second = x + at.second * row;
    OVER_PARTS(row, NAME(blend_part)(first + c, second + c, at.share, to + c,
                                     part));
}

/* One pixel of y: its neighbours in the blended row, how it weighs them, the
 * gate included, and what stands at it. */
typedef struct {
    const real *first, *second, *skip;
    real first_weight, second_weight, factor;
    real *y;
} NAME(merge_pixel);

INLINE void NAME(merge_resized)(const NAME(merge_pixel) *pixel, int64_t c,
                                int64_t part)
{
    vec x = pixel->first_weight * NAME(load_part)(pixel->first + c, part) +
            pixel->second_weight * NAME(load_part)(pixel->second + c, part);
    NAME(store_part)(pixel->y + c, x, part);
}

INLINE void NAME(merge_skip)(const NAME(merge_pixel) *pixel, int64_t shift,
                             int64_t c, int64_t part)
{
    vec x = pixel->factor * NAME(load_part)(pixel->skip + c, part);
    NAME(store_part)(pixel->y + shift + c, x, part);
}

static void NAME(merge_task)(const void *context, int64_t task, void *scratch)
{
    const merge_call *call = context;
    const int64_t n_x = call->x_channels, n_skip = call->skip_channels;
    const int64_t tasks = divide_up(call->out_height, MERGE_ROWS);
    const int64_t batch = task / tasks;
    const int64_t top = task % tasks * MERGE_ROWS;
    const int64_t bottom = smaller(top + MERGE_ROWS, call->out_height);
    const NAME(merge_scratch) parts = NAME(lay_out)(call, scratch);
    for (int64_t row = top; row < bottom; row++) {
        NAME(blend_rows)(
            call, batch,
            NAME(sample_at)(row, call->height, call->out_height),
            parts.blended);
        for (int64_t q = 0; q < call->out_width; q++) {
            const int64_t at =
                (batch * call->out_height + row) * call->out_width + q;
            const NAME(sample) column = parts.columns[q];
            const real factor =
                call->gate == NULL ? 1 : 1 + ((const real *)call->gate)[at];
            const NAME(merge_pixel) pixel = {
                .first = parts.blended + column.first * n_x,
                .second = parts.blended + column.second * n_x,
                .skip = (const real *)call->skip + at * n_skip,
                .first_weight = factor * (1 - column.share),
                .second_weight = factor * column.share,
                .factor = factor,
                .y = (real *)call->y + at * (n_x + n_skip),
            };
            OVER_PARTS(n_x, NAME(merge_resized)(&pixel, c, part));
            OVER_PARTS(n_skip, NAME(merge_skip)(&pixel, n_x, c, part));
        }
    }
}

/* The gradients of one pixel of y. */
typedef struct {
    const real *first, *second, *skip, *dy;
    real *dfirst, *dsecond, *dskip;
    real share, factor;
    vec dfactor;
} NAME(merge_pixel_backward);

/* Into the gradient of the blended row. */
INLINE void NAME(spread)(const NAME(merge_pixel_backward) *pixel, int64_t c,
                         int64_t part)
{
    vec gradient = pixel->factor * NAME(load_part)(pixel->dy + c, part);
    real *first = pixel->dfirst + c, *second = pixel->dsecond + c;
    vec to_second = pixel->share * gradient;
    NAME(store_part)(first,
                     NAME(load_part)(first, part) + (gradient - to_second),
                     part);
    /* After the store: at the border both are the same. */
    NAME(store_part)(second, NAME(load_part)(second, part) + to_second, part);
}

INLINE void NAME(weigh_resized)(NAME(merge_pixel_backward) *pixel, int64_t c,
                                int64_t part)
{
    vec x = (1 - pixel->share) * NAME(load_part)(pixel->first + c, part) +
            pixel->share * NAME(load_part)(pixel->second + c, part);
    pixel->dfactor += x * NAME(load_part)(pixel->dy + c, part);
}

INLINE void NAME(skip_backward)(NAME(merge_pixel_backward) *pixel,
                                int64_t shift, int64_t c, int64_t part)
{
    vec dy = NAME(load_part)(pixel->dy + shift + c, part);
    pixel->dfactor += dy * NAME(load_part)(pixel->skip + c, part);
    NAME(store_part)(pixel->dskip + c, pixel->factor * dy, part);
}

/* A row of y: the gradient of the blended row; where the row is `own`, those
 * of the skip map and the gate as well. */
static void NAME(merge_row_backward)(const merge_call *call, int64_t batch,
                                     int64_t row,
                                     const NAME(merge_scratch) *parts,
                                     int own)
{
    const int64_t n_x = call->x_channels, n_skip = call->skip_channels;
    vec dfactors[LANES];
    memset(parts->gradient, 0,
           (size_t)(call->width * n_x) * sizeof(real));
    for (int64_t q = 0; q < call->out_width; q++) {
        const int64_t at =
            (batch * call->out_height + row) * call->out_width + q;
        const NAME(sample) column = parts->columns[q];
        NAME(merge_pixel_backward) pixel = {
            .first = parts->blended + column.first * n_x,
            .second = parts->blended + column.second * n_x,
            .skip = (const real *)call->skip + at * n_skip,
            .dy = (const real *)call->dy + at * (n_x + n_skip),
            .dfirst = parts->gradient + column.first * n_x,
            .dsecond = parts->gradient + column.second * n_x,
            .dskip = (real *)call->dskip + at * n_skip,
            .share = column.share,
            .factor =
                call->gate == NULL ? 1 : 1 + ((const real *)call->gate)[at],
        };
        OVER_PARTS(n_x, NAME(spread)(&pixel, c, part));
        if (!own)
            continue;
        OVER_PARTS(n_skip, NAME(skip_backward)(&pixel, n_x, c, part));
        if (call->dgate == NULL)
            continue;
        OVER_PARTS(n_x, NAME(weigh_resized)(&pixel, c, part));
        dfactors[q % LANES] = pixel.dfactor;
        const int64_t filled = q % LANES + 1;
        if (filled == LANES || q + 1 == call->out_width) {
            real sums[LANES];
            for (int64_t i = filled; i < LANES; i++)
                dfactors[i] = (vec){0};
            NAME(sum_lanes)(dfactors, sums);
            memcpy((real *)call->dgate + at + 1 - filled, sums,
                   (size_t)filled * sizeof(real));
        }
    }
}

/* Adds a weighted part of a row. */
INLINE void NAME(add_part)(const real *row, real weight, real *to,
                           int64_t part)
{
    vec sum = NAME(load_part)(to, part) + weight * NAME(load_part)(row, part);
    NAME(store_part)(to, sum, part);
}

/* Some rows of x, from the rows of y that read them. A row of y whose first
 * row of x is the task's belongs to the task; the one above the task's may
 * have readers that share with its first. */
static void NAME(merge_backward_task)(const void *context, int64_t task,
                                      void *scratch)
{
    const merge_call *call = context;
    const int64_t tasks = divide_up(call->height, MERGE_ROWS);
    const int64_t batch = task / tasks;
    const int64_t top = task % tasks * MERGE_ROWS;
    const int64_t bottom = smaller(top + MERGE_ROWS, call->height);
    const int64_t length = call->width * call->x_channels;
    const NAME(merge_scratch) parts = NAME(lay_out)(call, scratch);
    real *dx = (real *)call->dx + batch * call->height * length;
    memset(dx + top * length, 0,
           (size_t)((bottom - top) * length) * sizeof(real));
    for (int64_t row = 0; row < call->out_height; row++) {
        const NAME(sample) at =
            NAME(sample_at)(row, call->height, call->out_height);
        if (at.second < top || at.first >= bottom)
            continue;
        const int own = at.first >= top;
        if (own && call->dgate != NULL)
            NAME(blend_rows)(call, batch, at, parts.blended);
        NAME(merge_row_backward)(call, batch, row, &parts, own);
        real *first = dx + at.first * length;
        real *second = dx + at.second * length;
        if (own)
            OVER_PARTS(length, NAME(add_part)(parts.gradient + c,
                                              1 - at.share, first + c, part));
        if (at.second < bottom)
            OVER_PARTS(length, NAME(add_part)(parts.gradient + c, at.share,
                                              second + c, part));
    }
}

static int NAME(run_merge)(const merge_call *call)
{
    return run_tasks(
        NAME(merge_task), call,
        call->batch * divide_up(call->out_height, MERGE_ROWS),
        call->n_threads, NAME(merge_scratch_bytes)(call));
}

static int NAME(run_merge_backward)(const merge_call *call)
{
    return run_tasks(NAME(merge_backward_task), call,
                     call->batch * divide_up(call->height, MERGE_ROWS),
                     call->n_threads, NAME(merge_scratch_bytes)(call));
}
