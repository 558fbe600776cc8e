/* The gated normalisation behind the scan: LayerNorm(x) * SiLU(z), row by row,
 * and its gradients. A template like vector.h. */

/* The sums over the channels of `count` <= LANES rows, `stride` apart:
 * of x, or of (x - mean)^2 where means are given. */
static void NAME(sum_channels)(const real *x, int64_t stride, int64_t count,
                               int64_t channels, const real *means,
                               real *sums)
{
    const int64_t whole = channels - channels % LANES;
    const int64_t rest = channels - whole;
    vec rows[LANES] = {{0}};
    for (int64_t r = 0; r < count; r++, x += stride) {
        vec sum = {0};
        if (means == NULL) {
            for (int64_t c = 0; c < whole; c += LANES)
                sum += NAME(load)(x + c);
            if (rest > 0)
                sum += NAME(load_part)(x + whole, rest);
        } else {
            const vec mean = NAME(broadcast)(means[r]);
            for (int64_t c = 0; c < whole; c += LANES) {
                vec centred = NAME(load)(x + c) - mean;
                sum += centred * centred;
            }
            for (int64_t c = whole; c < channels; c++)
                sum[c - whole] += (x[c] - means[r]) * (x[c] - means[r]);
        }
        rows[r] = sum;
    }
    NAME(sum_lanes)(rows, sums);
}

/* Of `count` <= LANES rows: mean, and 1 / sqrt(variance + eps). */
static void NAME(normal_scale)(const gate_call *call, const real *x,
                               int64_t count, real *means, real *scales)
{
    const int64_t channels = call->channels;
    NAME(sum_channels)(x, call->x_row, count, channels, NULL, means);
    for (int r = 0; r < LANES; r++)
        means[r] /= (real)channels;
    NAME(sum_channels)(x, call->x_row, count, channels, means, scales);
    for (int r = 0; r < LANES; r++) {
        real variance = scales[r] / (real)channels + (real)call->eps;
#if REAL_IS_DOUBLE
        scales[r] = 1 / sqrt(variance);
#else
        scales[r] = 1 / sqrtf(variance);
#endif
    }
}

/* What the gate does to the numbers of a row from channel c on, `part` <= LANES
 * of them. Inlined with a constant LANES, all but a row's end needs no check.
 */
INLINE void NAME(gate_part)(const gate_call *call, const real *x,
                            const real *z, real *y, vec mean, vec scale,
                            int64_t c, int64_t part)
{
    const real *weight = call->weight, *bias = call->bias;
    vec normal = (NAME(load_part)(x + c, part) - mean) * scale;
    vec affine = normal * NAME(load_part)(weight + c, part) +
                 NAME(load_part)(bias + c, part);
    vec gate = NAME(load_part)(z + c, part);
    vec open = NAME(logistic)(gate, NAME(exp_minus_abs)(gate));
    NAME(store_part)(y + c, affine * (gate * open), part);
}

static void NAME(gate_task)(const void *context, int64_t task, void *scratch)
{
    const gate_call *call = context;
    const int64_t channels = call->channels;
    const int64_t first = task * GATE_ROWS;
    const int64_t last = smaller(first + GATE_ROWS, call->rows);
    (void)scratch;
    for (int64_t row = first; row < last; row += LANES) {
        const int64_t count = smaller(LANES, last - row);
        const real *x = (const real *)call->x + row * call->x_row;
        const real *z = (const real *)call->z + row * call->z_row;
        real *y = (real *)call->y + row * channels;
        real means[LANES], scales[LANES];
        NAME(normal_scale)(call, x, count, means, scales);
        for (int64_t r = 0; r < count; r++) {
            const vec mean = NAME(broadcast)(means[r]);
            const vec scale = NAME(broadcast)(scales[r]);
            OVER_PARTS(channels,
                       NAME(gate_part)(call, x, z, y, mean, scale, c, part));
            x += call->x_row;
            z += call->z_row;
            y += channels;
        }
    }
}

/* The gradients of a row, and what a task sums of them. */
typedef struct {
    const real *x, *z, *dy;
    real *dx, *dz;
    vec mean, scale;
    vec *dweight, *dbias;
    vec sum, sum_normal;
} NAME(gate_row);

/* From channel c on: dz; the gradient with respect to the normalised numbers,
 * which waits at dx for its sums over the row. */
INLINE void NAME(gate_part_backward)(const gate_call *call,
                                     NAME(gate_row) *row, int64_t c,
                                     int64_t part)
{
    const real *weight = call->weight, *bias = call->bias;
    vec normal = (NAME(load_part)(row->x + c, part) - row->mean) * row->scale;
    vec factor = NAME(load_part)(weight + c, part);
    vec affine = normal * factor + NAME(load_part)(bias + c, part);
    vec gate = NAME(load_part)(row->z + c, part);
    vec open = NAME(logistic)(gate, NAME(exp_minus_abs)(gate));
    vec gated = gate * open, dy = NAME(load_part)(row->dy + c, part);
    vec slope = open + gated * (NAME(broadcast)(1) - open);
    NAME(store_part)(row->dz + c, dy * affine * slope, part);
    vec daffine = dy * gated;
    row->dweight[c / LANES] += daffine * normal;
    row->dbias[c / LANES] += daffine;
    vec dnormal = daffine * factor;
    NAME(store_part)(row->dx + c, dnormal, part);
    row->sum += dnormal;
    row->sum_normal += dnormal * normal;
}

/* From channel c on: dx, given the means over the row of the gradient at dx,
 * as it is and times the normalised numbers. */
INLINE void NAME(norm_part_backward)(const NAME(gate_row) *row, vec shift,
                                     vec slant, int64_t c, int64_t part)
{
    vec normal = (NAME(load_part)(row->x + c, part) - row->mean) * row->scale;
    vec dnormal = NAME(load_part)(row->dx + c, part);
    NAME(store_part)(row->dx + c,
                     row->scale * (dnormal - shift - normal * slant), part);
}

/* Up to LANES rows from `first` on. */
static void NAME(gate_rows_backward)(const gate_call *call, int64_t first,
                                     int64_t count, vec *dweight, vec *dbias)
{
    const int64_t channels = call->channels;
    const real share = 1 / (real)channels;
    real means[LANES], scales[LANES], shifts[LANES], slants[LANES];
    vec sums[LANES] = {{0}}, sums_normal[LANES] = {{0}};
    NAME(gate_row) rows[LANES];
    NAME(normal_scale)(call, (const real *)call->x + first * call->x_row,
                       count, means, scales);
    for (int64_t r = 0; r < count; r++) {
        NAME(gate_row) row = {
            .x = (const real *)call->x + (first + r) * call->x_row,
            .z = (const real *)call->z + (first + r) * call->z_row,
            .dy = (const real *)call->dy + (first + r) * call->dy_row,
            .dx = (real *)call->dx + (first + r) * channels,
            .dz = (real *)call->dz + (first + r) * channels,
            .mean = NAME(broadcast)(means[r]),
            .scale = NAME(broadcast)(scales[r]),
            .dweight = dweight,
            .dbias = dbias,
        };
        OVER_PARTS(channels, NAME(gate_part_backward)(call, &row, c, part));
        sums[r] = row.sum;
        sums_normal[r] = row.sum_normal;
        rows[r] = row;
    }
    NAME(sum_lanes)(sums, shifts);
    NAME(sum_lanes)(sums_normal, slants);
    for (int64_t r = 0; r < count; r++) {
        const vec shift = NAME(broadcast)(shifts[r] * share);
        const vec slant = NAME(broadcast)(slants[r] * share);
        OVER_PARTS(channels,
                   NAME(norm_part_backward)(rows + r, shift, slant, c, part));
    }
}

/* Gradients of a task's rows; its shares of dweight and dbias, one after the
 * other, go into the call's partial sums. */
static void NAME(gate_backward_task)(const void *context, int64_t task,
                                     void *scratch)
{
    const gate_call *call = context;
    const int64_t channels = call->channels;
    const int64_t n_vectors = divide_up(channels, LANES);
    const int64_t first = task * GATE_ROWS;
    const int64_t last = smaller(first + GATE_ROWS, call->rows);
    vec *dweight = scratch, *dbias = dweight + n_vectors;
    memset(scratch, 0, (size_t)(2 * n_vectors) * sizeof(vec));
    for (int64_t row = first; row < last; row += LANES)
        NAME(gate_rows_backward)(call, row, smaller(LANES, last - row),
                                 dweight, dbias);
    real *partial = (real *)call->partial_sums + task * 2 * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
        const int64_t part = smaller(LANES, channels - c);
        NAME(store_part)(partial + c, dweight[c / LANES], part);
        NAME(store_part)(partial + channels + c, dbias[c / LANES], part);
    }
}

static int NAME(run_gate)(const gate_call *call)
{
    return run_tasks(NAME(gate_task), call,
                     divide_up(call->rows, GATE_ROWS), call->n_threads, 64);
}

static int NAME(run_gate_backward)(const gate_call *call)
{
    const int64_t n_vectors = divide_up(call->channels, LANES);
    return run_tasks(NAME(gate_backward_task), call,
                     divide_up(call->rows, GATE_ROWS), call->n_threads,
                     (size_t)(2 * n_vectors) * sizeof(vec));
}
