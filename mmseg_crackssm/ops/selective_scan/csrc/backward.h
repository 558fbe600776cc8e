/* The backward scan. A template like vector.h.
 *
 * Time runs in reverse. The states of one segment are recomputed from those
 * that the forward saved at its first step, a few states at a time so that
 * they stay in the first-level cache. With g = dLoss/dh, per step:
 *
 *     g += dy * C               dC = sum over channels of h * dy
 *     dB = sum over channels of g * dt * u
 *     slope of dt: sum over states of g * h_before * decay * A + g * u * B
 *     dA += g * h_before * decay * dt
 *     g *= decay
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
    size_t per_step = 7 * CHUNK_STEPS, per_state = 2 * n;
    size_t segment = 2 * SEGMENT_VECTORS + GROUP + 2 * SAVED_EVERY;
    return (per_step + per_state + segment) * sizeof(vec) +
           n * sizeof(NAME(long_sum)) + 2 * n * CHUNK_STEPS * sizeof(real);
}

INLINE NAME(backward_chunk)
    NAME(lay_out_backward)(void *scratch, int64_t n_states)
{
    NAME(backward_chunk) chunk = {0};
    chunk.u = scratch;
    chunk.dt = chunk.u + CHUNK_STEPS;
    chunk.slope = chunk.dt + CHUNK_STEPS;
    chunk.dy = chunk.slope + CHUNK_STEPS;
    chunk.input = chunk.dy + CHUNK_STEPS;
    chunk.grad_input = chunk.input + CHUNK_STEPS;
    chunk.grad_decay = chunk.grad_input + CHUNK_STEPS;
    chunk.h = chunk.grad_decay + CHUNK_STEPS;
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
                            const int count, int64_t begin, int64_t end)
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
            vec decay = NAME(exp2)(dt * rates[k]);
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
        vec grad_input = chunk->grad_input[t];
        vec grad_decay = chunk->grad_decay[t];
        vec for_B[GROUP], for_C[GROUP];
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
    NAME(recompute)(chunk, n, count, begin, end);
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

/* Loads steps [start, start + steps) and computes what the forward did. */
static void NAME(load_backward)(const scan_call *call,
                                const channel_block *block, int64_t start,
                                int64_t steps, NAME(backward_chunk) *chunk)
{
    const NAME(channel_rows) u = NAME(at_step)(
        NAME(get_rows)(call->u, call->u_batch, call->u_row, block), start);
    const NAME(channel_rows) delta = NAME(at_step)(
        NAME(get_rows)(call->delta, call->delta_batch, call->delta_row,
                       block),
        start);
    const NAME(channel_rows) dy = NAME(at_step)(
        NAME(get_rows)(call->dy, call->dy_batch, call->dy_row, block), start);
    const NAME(channel_rows) next_u = NAME(at_step)(u, -CHUNK_STEPS);
    const NAME(channel_rows) next_delta = NAME(at_step)(delta, -CHUNK_STEPS);
    const real *B = (const real *)call->B + block->batch * call->B_batch +
                    block->group * call->B_group + start;
    const real *C = (const real *)call->C + block->batch * call->C_batch +
                    block->group * call->C_group + start;
    const vec bias = NAME(load_parameter)(call->delta_bias, block);
    NAME(load_channels)(u, block->n_channels, steps, chunk->u);
    NAME(load_channels)(delta, block->n_channels, steps, chunk->dt);
    NAME(load_channels)(dy, block->n_channels, steps, chunk->dy);
    NAME(copy_rows)(B, call->B_state, call->n_states, steps, -CHUNK_STEPS,
                    chunk->B);
    NAME(copy_rows)(C, call->C_state, call->n_states, steps, -CHUNK_STEPS,
                    chunk->C);
    chunk->next_dy = NAME(at_step)(dy, -CHUNK_STEPS);
    for (int64_t t = 0; t < steps; t++) {
        NAME(prefetch)(next_u, t);
        chunk->slope[t] = call->use_softplus
                              ? NAME(sigmoid)(chunk->dt[t] + bias)
                              : NAME(broadcast)(1);
    }
    NAME(delta_to_dt)(call, bias, steps, next_delta, chunk->dt);
    for (int64_t t = 0; t < steps; t++) {
        chunk->input[t] = chunk->dt[t] * chunk->u[t];
        chunk->grad_input[t] = (vec){0};
        chunk->grad_decay[t] = (vec){0};
    }
}

/* Sums over time that do not depend on the state. */
typedef struct {
    NAME(long_sum) dD, ddelta_bias;
} NAME(channel_sums);

/* From the sums over states: du and ddelta, left in chunk->u and dt. */
static void NAME(finish_chunk)(const NAME(backward_chunk) *chunk, vec D,
                               int64_t steps, NAME(channel_sums) *sums)
{
    const vec ln_2 = NAME(broadcast)((real)LN_OF_2);
    vec dD = {0}, ddelta_bias = {0};
    for (int64_t t = 0; t < steps; t++) {
        vec u = chunk->u[t], dy = chunk->dy[t];
        vec grad_input = chunk->grad_input[t];
        /* The rates carry log2(e): ln(2) takes it out again. */
        vec ddelta = (chunk->grad_decay[t] * ln_2 + grad_input * u) *
                     chunk->slope[t];
        dD += dy * u;
        ddelta_bias += ddelta;
        chunk->u[t] = grad_input * chunk->dt[t] + D * dy;
        chunk->dt[t] = ddelta;
    }
    NAME(add_to_sum)(&sums->dD, dD);
    NAME(add_to_sum)(&sums->ddelta_bias, ddelta_bias);
}

static void NAME(store_sums)(const scan_call *call,
                             const channel_block *block,
                             const NAME(backward_chunk) *chunk,
                             const NAME(channel_sums) *sums)
{
    const int64_t n_states = call->n_states;
    const int64_t first = block->batch * call->dim + block->first_channel;
    real *dA = (real *)call->dA + first * n_states;
    for (int64_t j = 0; j < block->n_channels; j++) {
        for (int64_t n = 0; n < n_states; n++)
            dA[j * n_states + n] = chunk->dA[n].sum[j];
        if (call->dD != NULL)
            ((real *)call->dD)[first + j] = sums->dD.sum[j];
        if (call->ddelta_bias != NULL)
            ((real *)call->ddelta_bias)[first + j] =
                sums->ddelta_bias.sum[j];
    }
}

/* One block, all of time; adds to dB and dC, rows of its group's states. */
static void NAME(backward_block)(const scan_call *call,
                                 const channel_block *block, void *scratch,
                                 real *dB, real *dC)
{
    const int64_t n_states = call->n_states, length = call->length;
    const int64_t saved_size = n_states * block->n_channels;
    NAME(backward_chunk) chunk = NAME(lay_out_backward)(scratch, n_states);
    const vec D = NAME(load_parameter)(call->D, block);
    const real *saved =
        (const real *)call->states + saved_states_offset(call, block);
    const NAME(channel_rows) du =
        NAME(get_rows)(call->du, call->dim * length, length, block);
    const NAME(channel_rows) ddelta =
        NAME(get_rows)(call->ddelta, call->dim * length, length, block);
    NAME(channel_sums) sums = {0};

    NAME(load_rates)(call, block, chunk.rates);
    for (int64_t n = 0; n < n_states; n++) {
        chunk.grad_state[n] = (vec){0};
        chunk.dA[n] = (NAME(long_sum)){0};
    }
    int64_t start = (length - 1) / CHUNK_STEPS * CHUNK_STEPS;
    for (; start >= 0; start -= CHUNK_STEPS) {
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        NAME(load_backward)(call, block, start, steps, &chunk);
        chunk.du_rows = NAME(at_step)(du, start);
        chunk.ddelta_rows = NAME(at_step)(ddelta, start);
        int64_t t = (steps - 1) / SAVED_EVERY * SAVED_EVERY;
        for (; t >= 0; t -= SAVED_EVERY) {
            const NAME(segment) segment = {
                .saved = saved + (start + t) / SAVED_EVERY * saved_size,
                .saved_size = saved_size,
                .n_channels = block->n_channels,
                .begin = t,
                .end = smaller(t + SAVED_EVERY, steps),
                .dB = dB + start + t,
                .dC = dC + start + t,
                .length = length,
            };
            NAME(segment_all)(&chunk, &segment, n_states);
        }
        NAME(finish_chunk)(&chunk, D, steps, &sums);
        NAME(store_channels)(chunk.du_rows, block->n_channels, steps,
                             chunk.u);
        NAME(store_channels)(chunk.ddelta_rows, block->n_channels, steps,
                             chunk.dt);
    }
    NAME(store_sums)(call, block, &chunk, &sums);
}

static void NAME(backward_task)(const void *context, int64_t task,
                                void *scratch)
{
    const backward_plan *plan = context;
    const scan_call *call = plan->call;
    const int64_t part = task / plan->n_sequences;
    const int64_t sequence = task % plan->n_sequences;
    const int64_t n_blocks = blocks_per_group(call, LANES);
    const int64_t more = (task - plan->n_sequences) * plan->stride;
    real *dB = (real *)call->dB + sequence * plan->stride;
    real *dC = (real *)call->dC + sequence * plan->stride;
    if (part > 0) {
        dB = (real *)plan->more_dB + more;
        dC = (real *)plan->more_dC + more;
    }
    memset(dB, 0, (size_t)plan->stride * sizeof(real));
    memset(dC, 0, (size_t)plan->stride * sizeof(real));
    for (int64_t i = n_blocks * part / plan->n_parts;
         i < n_blocks * (part + 1) / plan->n_parts; i++) {
        const channel_block block =
            get_block(call, sequence / call->n_groups,
                      sequence % call->n_groups, i, LANES);
        NAME(backward_block)(call, &block, scratch, dB, dC);
    }
}

/* Adds the other parts of one sequence to the first. */
static void NAME(add_parts)(const backward_plan *plan, int64_t sequence,
                            const real *more, real *to)
{
    to += sequence * plan->stride;
    more += sequence * plan->stride;
    for (int64_t part = 1; part < plan->n_parts; part++) {
        for (int64_t i = 0; i < plan->stride; i++)
            to[i] += more[i];
        more += plan->n_sequences * plan->stride;
    }
}

static void NAME(add_parts_task)(const void *context, int64_t task,
                                 void *unused_scratch)
{
    const backward_plan *plan = context;
    (void)unused_scratch;
    if (task % 2 == 0)
        NAME(add_parts)(plan, task / 2, plan->more_dB, plan->call->dB);
    else
        NAME(add_parts)(plan, task / 2, plan->more_dC, plan->call->dC);
}

static int NAME(backward)(const scan_call *call)
{
    backward_plan plan = plan_backward(call, LANES);
    const int64_t n_tasks = plan.n_sequences * plan.n_parts;
    const size_t scratch = NAME(backward_scratch_size)(call->n_states);
    if (plan.n_parts == 1)
        return run_tasks(NAME(backward_task), &plan, n_tasks,
                         call->n_threads, scratch);

    const size_t more = (size_t)((n_tasks - plan.n_sequences) * plan.stride);
    plan.more_dB = malloc(2 * more * sizeof(real));
    if (plan.more_dB == NULL)
        return SCAN_NO_MEMORY;
    plan.more_dC = (real *)plan.more_dB + more;
    int status = run_tasks(NAME(backward_task), &plan, n_tasks,
                           call->n_threads, scratch);
    if (status == SCAN_OK)
        status = run_tasks(NAME(add_parts_task), &plan,
                           2 * plan.n_sequences, call->n_threads,
                           sizeof(vec));
    free(plan.more_dB);
    return status;
}
