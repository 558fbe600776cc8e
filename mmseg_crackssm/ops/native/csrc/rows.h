/* Rows in memory (one channel or state each) to and from vectors. A template
 * like vector.h. */

/* The rows of a block's channels, from some step on. */
typedef struct {
    real *first;
    int64_t stride;
} NAME(channel_rows);

INLINE NAME(channel_rows)
    NAME(get_rows)(const void *tensor, int64_t batch_stride,
                   int64_t row_stride, const channel_block *block)
{
    return (NAME(channel_rows)){
        .first = (real *)tensor + block->batch * batch_stride +
                 block->first_channel * row_stride,
        .stride = row_stride,
    };
}

INLINE NAME(channel_rows) NAME(at_step)(NAME(channel_rows) rows, int64_t step)
{
    rows.first += step;
    return rows;
}

/* Prefetches a part of one chunk of the rows: all of it over t = 0 ..
 * CHUNK_STEPS - 1. The processor does not foresee the jumps from row to row,
 * and can await only some twenty lines at a time: so one line per step of
 * arithmetic, a chunk ahead. */
INLINE void NAME(prefetch)(NAME(channel_rows) rows, int64_t t)
{
    /* unsigned: shifts and masks, without a correction for signs */
    const uint64_t step = (uint64_t)t, line_steps = 64 / sizeof(real);
    const uint64_t lines = CHUNK_STEPS / line_steps;
    const real *row =
        rows.first + (int64_t)(step / lines % LANES) * rows.stride;
    __builtin_prefetch(row + step % lines * line_steps, 0, 3);
}

/* LANES whole rows of LANES steps. Functions of their own: inlined, they
 * would keep the addresses of all rows, more than there are registers. */
static NOINLINE void NAME(load_tile)(const real *row, int64_t stride, vec *to)
{
    vec rows[LANES];
    for (int j = 0; j < LANES; j++, row += stride)
        rows[j] = NAME(load)(row);
    NAME(transpose)(rows);
    for (int j = 0; j < LANES; j++)
        to[j] = rows[j];
}

static NOINLINE void NAME(store_tile)(real *row, int64_t stride,
                                      const vec *from)
{
    vec rows[LANES];
    for (int j = 0; j < LANES; j++)
        rows[j] = from[j];
    NAME(transpose)(rows);
    for (int j = 0; j < LANES; j++, row += stride)
        NAME(store)(row, rows[j]);
}

/* Fewer channels or steps: zeros in the other lanes and steps. */
static NOINLINE void NAME(load_part_of_tile)(const real *row, int64_t stride,
                                             int64_t n_channels,
                                             int64_t steps, vec *to)
{
    for (int j = 0; j < LANES; j++) {
        to[j] = (vec){0};
        if (j < n_channels)
            to[j] = NAME(load_part)(row + j * stride, steps);
    }
    NAME(transpose)(to);
}

static NOINLINE void NAME(store_part_of_tile)(real *row, int64_t stride,
                                              int64_t n_channels,
                                              int64_t steps, const vec *from)
{
    vec rows[LANES];
    for (int j = 0; j < LANES; j++)
        rows[j] = from[j];
    NAME(transpose)(rows);
    for (int j = 0; j < n_channels; j++)
        NAME(store_part)(row + j * stride, rows[j], steps);
}

/* Channel rows to one vector per step. */
static void NAME(load_channels)(NAME(channel_rows) rows, int64_t n_channels,
                                int64_t steps, vec *to)
{
    for (int64_t t = 0; t < steps; t += LANES) {
        if (steps - t >= LANES && n_channels == LANES)
            NAME(load_tile)(rows.first + t, rows.stride, to + t);
        else
            NAME(load_part_of_tile)(rows.first + t, rows.stride, n_channels,
                                    smaller(steps - t, LANES), to + t);
    }
}

/* The way back. */
static void NAME(store_channels)(NAME(channel_rows) rows, int64_t n_channels,
                                 int64_t steps, const vec *from)
{
    for (int64_t t = 0; t < steps; t += LANES) {
        if (steps - t >= LANES && n_channels == LANES)
            NAME(store_tile)(rows.first + t, rows.stride, from + t);
        else
            NAME(store_part_of_tile)(rows.first + t, rows.stride, n_channels,
                                     smaller(steps - t, LANES), from + t);
    }
}

/* A chunk of the rows of B or C. In place they may lie a power of two apart,
 * all in the same few lines of the cache; the copies lie side by side. Those
 * of the chunk at distance `ahead` are prefetched. */
INLINE void NAME(copy_rows)(const real *from, int64_t row_stride,
                            int64_t n_rows, int64_t steps, int64_t ahead,
                            real *to)
{
    for (int64_t n = 0; n < n_rows; n++) {
        const real *row = from + n * row_stride;
        real *copy = to + n * CHUNK_STEPS;
        if (steps == CHUNK_STEPS) {
            for (int64_t t = 0; t < CHUNK_STEPS; t += LANES) {
                *(vec *)(copy + t) = NAME(load)(row + t);
                __builtin_prefetch(row + t + ahead, 0, 3);
            }
        } else {
            memcpy(copy, row, (size_t)steps * sizeof(real));
        }
    }
}

/* One number per channel; absent: zeros. */
INLINE vec NAME(load_parameter)(const void *parameter,
                                const channel_block *block)
{
    if (parameter == NULL)
        return (vec){0};
    const real *from = parameter;
    return NAME(load_part)(from + block->first_channel, block->n_channels);
}

/* A, scaled so that exp(dt * A) = exp2(dt * rates). Returns the largest
 * magnitude among the rates of each channel, NaN left out. */
INLINE vec NAME(load_rates)(const scan_call *call, const channel_block *block,
                            vec *rates)
{
    const real *A = call->A;
    vec steepest = {0};
    for (int64_t n = 0; n < call->n_states; n++) {
        vec x = {0};
        for (int64_t j = 0; j < block->n_channels; j++)
            x[j] = A[(block->first_channel + j) * call->A_row + n];
        rates[n] = x * NAME(broadcast)((real)LOG2_OF_E);
        steepest = NAME(max)(NAME(absolute)(rates[n]), steepest);
    }
    return steepest;
}

/* Whether exp2_of_product may take its short way for steps and rates of up to
 * these magnitudes. */
INLINE int NAME(exponents_are_small)(vec longest, vec steepest)
{
    ivec is_large = longest * steepest > NAME(broadcast)(SMALL_EXPONENT);
    int any = 0;
    for (int i = 0; i < LANES; i++)
        any |= is_large[i] != 0;
    return !any;
}

/* From delta to dt, in place, and to input = dt * u; the derivative of dt
 * where `slope` is given. Returns the largest magnitude of dt in each channel,
 * NaN left out. */
INLINE vec NAME(delta_to_dt)(const scan_call *call, vec bias, int64_t steps,
                             NAME(channel_rows) ahead, const vec *u,
                             vec *delta, vec *input, vec *slope)
{
    vec longest = {0};
    for (int64_t t = 0; t < steps; t++) {
        vec dt = delta[t] + bias, dt_slope = NAME(broadcast)(1);
        vec magnitude;
        NAME(prefetch)(ahead, t);
        if (call->use_softplus) {
            vec e = NAME(exp_minus_abs)(dt);
            if (slope != NULL)
                dt_slope = NAME(softplus_slope)(dt, e);
            magnitude = dt = NAME(softplus)(dt, e);
        } else {
            magnitude = NAME(absolute)(dt);
        }
        if (slope != NULL)
            slope[t] = dt_slope;
        delta[t] = dt;
        input[t] = dt * u[t];
        longest = NAME(max)(magnitude, longest);
    }
    return longest;
}
