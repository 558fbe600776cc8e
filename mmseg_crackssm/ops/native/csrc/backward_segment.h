/* One segment of the backward scan: the chunk that it lies in, its states,
 * and their gradients. A template like vector.h.
 */

/* A running sum and what rounding has taken from it (Kahan): the sums over
 * all of time then keep their digits, whatever the length. */
typedef struct {
    vec sum, lost;
} NAME(long_sum);

INLINE void NAME(add_to_sum)(NAME(long_sum) * total, vec x)
{
    vec corrected = x - total->lost;
    vec sum = total->sum + corrected;
    total->lost = (sum - total->sum) - corrected;
    total->sum = sum;
}

/* One chunk of one block, in the first-level cache. */
typedef struct {
    vec *u, *dt, *slope, *dy;  /* [step] slope: of dt in delta */
    vec *input;                /* [step] dt * u */
    vec *grad_input;           /* [step] sum over states of g * B */
    vec *grad_decay;           /* [step] of g * h_before * decay * rates */
    vec *rates;                /* [state] A * log2(e) */
    vec steepest;              /* of the rates */
    int has_small_exponents;
    vec *grad_state;           /* [state] g of the step after */
    NAME(long_sum) * dA;       /* [state] */
    real *B, *C;               /* [state][CHUNK_STEPS] */
    vec *h;                    /* [step + 1][state of the group] */
    vec *decay;                /* [step][state of the group] */
    vec *sums_B, *sums_C;      /* [step] dB and dC, not or half summed */
    /* to prefetch meanwhile */
    NAME(channel_rows) next_dy, du_rows, ddelta_rows;
} NAME(backward_chunk);

/* States recomputed at a time, and vectors for them. */
#define GROUP 4
#define SEGMENT_VECTORS (GROUP * SAVED_EVERY)

static size_t NAME(backward_scratch_size)(int64_t n_states)
{
    size_t n = (size_t)n_states;
    size_t per_step = 7 * STEP_ARRAY, per_state = 2 * n;
    size_t segment = 2 * SEGMENT_VECTORS + GROUP + 2 * SAVED_EVERY;
    return (per_step + per_state + segment) * sizeof(vec) +
           n * sizeof(NAME(long_sum)) + 2 * n * CHUNK_STEPS * sizeof(real);
}

INLINE NAME(backward_chunk)
    NAME(lay_out_backward)(void *scratch, int64_t n_states)
{
    NAME(backward_chunk) chunk = {0};
    chunk.u = scratch;
    chunk.dt = chunk.u + STEP_ARRAY;
    chunk.slope = chunk.dt + STEP_ARRAY;
    chunk.dy = chunk.slope + STEP_ARRAY;
    chunk.input = chunk.dy + STEP_ARRAY;
    chunk.grad_input = chunk.input + STEP_ARRAY;
    chunk.grad_decay = chunk.grad_input + STEP_ARRAY;
    chunk.h = chunk.grad_decay + STEP_ARRAY;
    chunk.decay = chunk.h + SEGMENT_VECTORS + GROUP;
    chunk.sums_B = chunk.decay + SEGMENT_VECTORS;
    chunk.sums_C = chunk.sums_B + SAVED_EVERY;
    chunk.rates = chunk.sums_C + SAVED_EVERY;
    chunk.grad_state = chunk.rates + n_states;
    chunk.dA = (NAME(long_sum) *)(chunk.grad_state + n_states);
    chunk.B = (real *)(chunk.dA + n_states);
    chunk.C = chunk.B + n_states * CHUNK_STEPS;
    return chunk;
}

/* Recomputes h and decay of `count` states over steps [begin, end); h[0] of
 * the chunk holds the states before the first of them. */
INLINE void NAME(recompute)(const NAME(backward_chunk) *chunk, int64_t n,
                            const int count, const int is_small,
                            int64_t begin, int64_t end)
{
    const real *B = chunk->B + n * CHUNK_STEPS;
    vec *h = chunk->h, *decays = chunk->decay;
    vec rates[GROUP], state[GROUP];
    UNROLL for (int k = 0; k < count; k++)
    {
        rates[k] = chunk->rates[n + k];
        state[k] = h[k];
    }
    for (int64_t t = begin; t < end; t++) {
        vec dt = chunk->dt[t], input = chunk->input[t];
        NAME(prefetch)(chunk->next_dy, t);
        h += count;
        UNROLL for (int k = 0; k < count; k++)
        {
            vec decay = NAME(exp2_of_product)(dt, rates[k], is_small);
            vec driven = input * NAME(broadcast)(B[k * CHUNK_STEPS + t]);
            state[k] = decay * state[k] + driven;
            h[k] = state[k];
            decays[k] = decay;
        }
        decays += count;
    }
}

/* The gradients of `count` states over the recomputed steps, in reverse. */
INLINE void NAME(retreat)(const NAME(backward_chunk) *chunk, int64_t n,
                          const int count, int64_t begin, int64_t end)
{
    const real *B = chunk->B + n * CHUNK_STEPS;
    const real *C = chunk->C + n * CHUNK_STEPS;
    vec rates[GROUP], g[GROUP], dA[GROUP], h_after[GROUP];
    UNROLL for (int k = 0; k < count; k++)
    {
        rates[k] = chunk->rates[n + k];
        g[k] = chunk->grad_state[n + k];
        dA[k] = (vec){0};
        h_after[k] = chunk->h[(end - begin) * count + k];
    }
    for (int64_t t = end - 1; t >= begin; t--) {
        const vec *h_before = chunk->h + (t - begin) * count;
        const vec *decay = chunk->decay + (t - begin) * count;
        vec dt = chunk->dt[t], dy = chunk->dy[t], input = chunk->input[t];
        vec grad_input = {0}, grad_decay = {0};
        vec for_B[GROUP], for_C[GROUP];
        if (n > 0) {
            grad_input = chunk->grad_input[t];
            grad_decay = chunk->grad_decay[t];
        }
        NAME(prefetch)(chunk->du_rows, t);
        NAME(prefetch)(chunk->ddelta_rows, t);
        UNROLL for (int k = 0; k < count; k++)
        {
            vec grad = g[k] + dy * NAME(broadcast)(C[k * CHUNK_STEPS + t]);
            for_C[k] = h_after[k] * dy;
            for_B[k] = grad * input;
            grad_input += grad * NAME(broadcast)(B[k * CHUNK_STEPS + t]);
            g[k] = decay[k] * grad;
            h_after[k] = h_before[k];
            vec product = g[k] * h_after[k];
            grad_decay += product * rates[k];
            dA[k] += product * dt;
        }
        chunk->grad_input[t] = grad_input;
        chunk->grad_decay[t] = grad_decay;
        if (count == GROUP) {
            chunk->sums_B[t - begin] = NAME(sum_into_quads)(
                for_B[0], for_B[1], for_B[2], for_B[3]);
            chunk->sums_C[t - begin] = NAME(sum_into_quads)(
                for_C[0], for_C[1], for_C[2], for_C[3]);
        } else {
            chunk->sums_B[t - begin] = for_B[0];
            chunk->sums_C[t - begin] = for_C[0];
        }
    }
    UNROLL for (int k = 0; k < count; k++)
    {
        chunk->grad_state[n + k] = g[k];
        NAME(add_to_sum)(&chunk->dA[n + k], dA[k]);
    }
}

/* Finishes the sums over lanes of one segment and adds them to the rows of
 * its states. */
INLINE void NAME(add_lane_sums)(vec *sums, int64_t steps, const int count,
                                real *rows, int64_t length)
{
    for (int64_t t = steps; t % LANES != 0; t++)
        sums[t] = (vec){0};
    for (int64_t t = 0; t < steps; t += LANES) {
        const int64_t n_steps = smaller(steps - t, LANES);
        vec totals[4], *x = sums + t;
        if (count == GROUP) {
            /* Quad q of totals[i]: the 4 states of step 4 q + i. */
            for (int i = 0; i < 4; i++)
                totals[i] = NAME(sum_quads)(x + i, 4);
            NAME(transpose_in_quads)(totals);
        } else {
            vec quads[LANES / 4];
            for (int i = 0; i < LANES / 4; i++, x += 4)
                quads[i] = NAME(sum_into_quads)(x[0], x[1], x[2], x[3]);
            totals[0] = NAME(sum_quads)(quads, 1);
        }
        for (int k = 0; k < count; k++) {
            real *place = rows + k * length + t;
            vec before = NAME(load_part)(place, n_steps);
            /* for the segment that comes next */
            __builtin_prefetch(place - SAVED_EVERY, 0, 3);
            NAME(store_part)(place, before + totals[k], n_steps);
        }
    }
}

typedef struct {
    const real *saved; /* the states before the segment: [state][channel] */
    int64_t saved_size;
    int64_t n_channels;
    int64_t begin, end; /* steps within the chunk */
    real *dB, *dC;      /* rows of the states, at the segment's first step */
    int64_t length;     /* of the rows */
} NAME(segment);

INLINE void NAME(segment_states)(const NAME(backward_chunk) *chunk,
                                 const NAME(segment) *segment, int64_t n,
                                 const int count)
{
    const int64_t begin = segment->begin, end = segment->end;
    for (int k = 0; k < count; k++) {
        const real *saved = segment->saved + (n + k) * segment->n_channels;
        chunk->h[k] = NAME(load_part)(saved, segment->n_channels);
        /* the segment that comes next */
        __builtin_prefetch(saved - segment->saved_size, 0, 3);
    }
    if (chunk->has_small_exponents)
        NAME(recompute)(chunk, n, count, 1, begin, end);
    else
        NAME(recompute)(chunk, n, count, 0, begin, end);
    NAME(retreat)(chunk, n, count, begin, end);
    NAME(add_lane_sums)(chunk->sums_B, end - begin, count,
                        segment->dB + n * segment->length, segment->length);
    NAME(add_lane_sums)(chunk->sums_C, end - begin, count,
                        segment->dC + n * segment->length, segment->length);
}

static NOINLINE void NAME(segment_states_group)(
    const NAME(backward_chunk) *chunk, const NAME(segment) *segment,
    int64_t n)
{
    NAME(segment_states)(chunk, segment, n, GROUP);
}

static NOINLINE void NAME(segment_states_1)(
    const NAME(backward_chunk) *chunk, const NAME(segment) *segment,
    int64_t n)
{
    NAME(segment_states)(chunk, segment, n, 1);
}

static void NAME(segment_all)(const NAME(backward_chunk) *chunk,
                              const NAME(segment) *segment, int64_t n_states)
{
    int64_t n = 0;
    for (; n + GROUP <= n_states; n += GROUP)
        NAME(segment_states_group)(chunk, segment, n);
    for (; n < n_states; n++)
        NAME(segment_states_1)(chunk, segment, n);
}
