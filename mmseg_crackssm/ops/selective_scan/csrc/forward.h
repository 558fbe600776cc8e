/* The forward scan. A template like vector.h. */

/* One chunk of one block, in the first-level cache. */
typedef struct {
    vec *dt;     /* [step] */
    vec *input;  /* [step] dt * u */
    vec *y;      /* [step] u on the way in */
    vec *rates;  /* [state] A * log2(e) */
    vec *state;  /* [state] */
    real *B, *C; /* [state][CHUNK_STEPS] */
    NAME(channel_rows) next_delta, y_rows; /* to prefetch meanwhile */
} NAME(forward_chunk);

static size_t NAME(forward_scratch_size)(int64_t n_states)
{
    size_t n = (size_t)n_states;
    return (3 * CHUNK_STEPS + 2 * n) * sizeof(vec) +
           2 * n * CHUNK_STEPS * sizeof(real);
}

INLINE NAME(forward_chunk)
    NAME(lay_out_forward)(void *scratch, int64_t n_states)
{
    NAME(forward_chunk) chunk = {0};
    chunk.dt = scratch;
    chunk.input = chunk.dt + CHUNK_STEPS;
    chunk.y = chunk.input + CHUNK_STEPS;
    chunk.rates = chunk.y + CHUNK_STEPS;
    chunk.state = chunk.rates + n_states;
    chunk.B = (real *)(chunk.state + n_states);
    chunk.C = chunk.B + n_states * CHUNK_STEPS;
    return chunk;
}

/* Runs `count` states, from state `n`, over steps [begin, end). */
INLINE void NAME(advance)(const NAME(forward_chunk) *chunk, int64_t n,
                          const int count, int64_t begin, int64_t end)
{
    const vec *dts = chunk->dt, *inputs = chunk->input;
    const real *B = chunk->B + n * CHUNK_STEPS;
    const real *C = chunk->C + n * CHUNK_STEPS;
    const NAME(channel_rows) next_delta = chunk->next_delta;
    const NAME(channel_rows) y_rows = chunk->y_rows;
    vec *ys = chunk->y;
    vec rates[MAX_STATE_GROUP], state[MAX_STATE_GROUP];
    UNROLL for (int k = 0; k < count; k++)
    {
        rates[k] = chunk->rates[n + k];
        state[k] = chunk->state[n + k];
    }
    for (int64_t t = begin; t < end; t++) {
        vec dt = dts[t], input = inputs[t], y = ys[t];
        NAME(prefetch)(next_delta, t);
        NAME(prefetch)(y_rows, t);
        UNROLL for (int k = 0; k < count; k++)
        {
            vec decay = NAME(exp2)(dt * rates[k]);
            vec driven = input * NAME(broadcast)(B[k * CHUNK_STEPS + t]);
            state[k] = decay * state[k] + driven;
            y += state[k] * NAME(broadcast)(C[k * CHUNK_STEPS + t]);
        }
        ys[t] = y;
    }
    UNROLL for (int k = 0; k < count; k++)
        chunk->state[n + k] = state[k];
}

/* Copies of their own: a constant count keeps the states in registers. */
static NOINLINE void NAME(advance_8)(const NAME(forward_chunk) *chunk,
                                     int64_t n, int64_t begin, int64_t end)
{
    NAME(advance)(chunk, n, 8, begin, end);
}

static NOINLINE void NAME(advance_4)(const NAME(forward_chunk) *chunk,
                                     int64_t n, int64_t begin, int64_t end)
{
    NAME(advance)(chunk, n, 4, begin, end);
}

static NOINLINE void NAME(advance_1)(const NAME(forward_chunk) *chunk,
                                     int64_t n, int64_t begin, int64_t end)
{
    NAME(advance)(chunk, n, 1, begin, end);
}

static void NAME(advance_all)(const NAME(forward_chunk) *chunk,
                              int64_t n_states, int64_t begin, int64_t end)
{
    int64_t n = 0;
    if (LARGE_STATE_GROUP)
        for (; n + 8 <= n_states; n += 8)
            NAME(advance_8)(chunk, n, begin, end);
    for (; n + 4 <= n_states; n += 4)
        NAME(advance_4)(chunk, n, begin, end);
    for (; n < n_states; n++)
        NAME(advance_1)(chunk, n, begin, end);
}

static void NAME(save_states)(const vec *state, int64_t n_states,
                              int64_t n_channels, real *to)
{
    for (int64_t n = 0; n < n_states; n++)
        NAME(store_part)(to + n * n_channels, state[n], n_channels);
}

/* Loads steps [start, start + steps) and computes dt, input and D * u. */
static void NAME(load_forward)(const scan_call *call,
                               const channel_block *block, int64_t start,
                               int64_t steps, NAME(forward_chunk) *chunk)
{
    const NAME(channel_rows) u = NAME(at_step)(
        NAME(get_rows)(call->u, call->u_batch, call->u_row, block), start);
    const NAME(channel_rows) delta = NAME(at_step)(
        NAME(get_rows)(call->delta, call->delta_batch, call->delta_row,
                       block),
        start);
    const real *B = (const real *)call->B + block->batch * call->B_batch +
                    block->group * call->B_group + start;
    const real *C = (const real *)call->C + block->batch * call->C_batch +
                    block->group * call->C_group + start;
    const vec D = NAME(load_parameter)(call->D, block);
    const vec bias = NAME(load_parameter)(call->delta_bias, block);
    NAME(load_channels)(u, block->n_channels, steps, chunk->y);
    NAME(load_channels)(delta, block->n_channels, steps, chunk->dt);
    NAME(copy_rows)(B, call->B_state, call->n_states, steps, CHUNK_STEPS,
                    chunk->B);
    NAME(copy_rows)(C, call->C_state, call->n_states, steps, CHUNK_STEPS,
                    chunk->C);
    chunk->next_delta = NAME(at_step)(delta, CHUNK_STEPS);
    NAME(delta_to_dt)(call, bias, steps, NAME(at_step)(u, CHUNK_STEPS),
                      chunk->dt);
    for (int64_t t = 0; t < steps; t++) {
        chunk->input[t] = chunk->dt[t] * chunk->y[t];
        chunk->y[t] = D * chunk->y[t];
    }
}

static void NAME(forward_block)(const void *context, int64_t task,
                                void *scratch)
{
    const scan_call *call = context;
    const int64_t n_states = call->n_states, length = call->length;
    const int64_t n_blocks = blocks_per_group(call, LANES);
    const int64_t sequence = task / n_blocks;
    const channel_block block =
        get_block(call, sequence / call->n_groups, sequence % call->n_groups,
                  task % n_blocks, LANES);
    NAME(forward_chunk) chunk = NAME(lay_out_forward)(scratch, n_states);
    const NAME(channel_rows) y =
        NAME(get_rows)(call->y, call->dim * length, length, &block);
    real *saved = NULL;
    if (call->states != NULL)
        saved = (real *)call->states + saved_states_offset(call, &block);

    NAME(load_rates)(call, &block, chunk.rates);
    for (int64_t n = 0; n < n_states; n++)
        chunk.state[n] = (vec){0};
    for (int64_t start = 0; start < length; start += CHUNK_STEPS) {
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        const int64_t segment = saved != NULL ? SAVED_EVERY : CHUNK_STEPS;
        NAME(load_forward)(call, &block, start, steps, &chunk);
        chunk.y_rows = NAME(at_step)(y, start);
        for (int64_t t = 0; t < steps; t += segment) {
            if (saved != NULL) {
                NAME(save_states)(chunk.state, n_states, block.n_channels,
                                  saved);
                saved += n_states * block.n_channels;
            }
            NAME(advance_all)(&chunk, n_states, t,
                              smaller(t + segment, steps));
        }
        NAME(store_channels)(chunk.y_rows, block.n_channels, steps, chunk.y);
    }
}

static int NAME(forward)(const scan_call *call)
{
    int64_t n_tasks =
        call->batch * call->n_groups * blocks_per_group(call, LANES);
    return run_tasks(NAME(forward_block), call, n_tasks, call->n_threads,
                     NAME(forward_scratch_size)(call->n_states));
}
