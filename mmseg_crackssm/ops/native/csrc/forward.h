/* The forward scan. A template like vector.h. */

/* On a path: what comes after a chunk, to be prefetched meanwhile. The
 * processor foresees the rows of an image, not its columns or a sorted path. */
typedef struct {
    /* the block that comes next, the lines of its steps */
    const int64_t *path;
    int64_t steps;
    const real *tokens, *y;
    int64_t token_stride, y_stride;
    /* the chunk after this one, its rows of `projected` */
    const int64_t *later_path;
    int64_t later_steps;
    const real *projected;
    int64_t projected_stride, projected_width;
} NAME(path_ahead);

INLINE void NAME(prefetch_numbers)(const real *from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof(real))
        __builtin_prefetch(from + i, 0, 3);
    __builtin_prefetch(from + count - 1, 0, 3);
}

INLINE void NAME(prefetch_on_path)(const NAME(path_ahead) *ahead, int64_t t)
{
    if (t < ahead->steps) {
        const int64_t token = ahead->path[t];
        __builtin_prefetch(ahead->tokens + token * ahead->token_stride, 0, 3);
        __builtin_prefetch(ahead->y + token * ahead->y_stride, 1, 3);
    }
    if (t < ahead->later_steps)
        NAME(prefetch_numbers)(
            ahead->projected + ahead->later_path[t] * ahead->projected_stride,
            ahead->projected_width);
}

/* One chunk of one block, in the first-level cache. */
typedef struct {
    vec *dt;     /* [step] */
    vec *input;  /* [step] dt * u */
    vec *y;      /* [step] u on the way in */
    vec *rates;  /* [state] A * log2(e) */
    vec steepest; /* of the rates */
    vec *state;  /* [state] */
    int has_small_exponents;
    real *B, *C; /* [state][CHUNK_STEPS] */
    int64_t step_stride; /* of B and C on a path, see path_block.numbers */
    /* to prefetch meanwhile */
    NAME(channel_rows) next_u, next_delta, y_rows;
    NAME(path_ahead) ahead;
} NAME(forward_chunk);

static size_t NAME(forward_scratch_size)(int64_t n_states)
{
    size_t n = (size_t)n_states;
    return (3 * STEP_ARRAY + 2 * n * MAX_SHARED_BLOCKS) * sizeof(vec) +
           2 * n * CHUNK_STEPS * sizeof(real);
}

/* For the block at this index among those that share B and C: its rates and
 * states are its own, all else is overwritten by the next one. */
INLINE NAME(forward_chunk)
    NAME(lay_out_forward)(void *scratch, int64_t n_states, int64_t index)
{
    NAME(forward_chunk) chunk = {0};
    chunk.dt = scratch;
    chunk.input = chunk.dt + STEP_ARRAY;
    chunk.y = chunk.input + STEP_ARRAY;
    chunk.B = (real *)(chunk.y + STEP_ARRAY);
    chunk.C = chunk.B + n_states * CHUNK_STEPS;
    chunk.rates = (vec *)(chunk.C + n_states * CHUNK_STEPS);
    chunk.rates += 2 * n_states * index;
    chunk.state = chunk.rates + n_states;
    return chunk;
}

/* Runs `count` states, from state `n`, over steps [begin, end). With is_path
 * the chunk is one of paths.h. */
INLINE void NAME(advance)(const NAME(forward_chunk) *chunk, int64_t n,
                          const int count, const int is_path,
                          const int is_small, int64_t begin, int64_t end)
{
    const vec *dts = chunk->dt, *inputs = chunk->input;
    const NAME(channel_rows) next_delta = chunk->next_delta;
    const NAME(channel_rows) y_rows = chunk->y_rows;
    const int64_t state_stride = is_path ? 1 : CHUNK_STEPS;
    const int64_t step_stride = is_path ? chunk->step_stride : 1;
    const real *B = chunk->B + n * state_stride + begin * step_stride;
    const real *C = chunk->C + n * state_stride + begin * step_stride;
    vec *ys = chunk->y;
    vec rates[MAX_STATE_GROUP], state[MAX_STATE_GROUP];
    UNROLL for (int k = 0; k < count; k++)
    {
        rates[k] = chunk->rates[n + k];
        state[k] = chunk->state[n + k];
    }
    for (int64_t t = begin; t < end; t++) {
        vec dt = dts[t], input = inputs[t], y = ys[t];
        if (!is_path) {
            NAME(prefetch)(next_delta, t);
            NAME(prefetch)(y_rows, t);
        } else if (n == 0) {
            NAME(prefetch_on_path)(&chunk->ahead, t);
        }
        UNROLL for (int k = 0; k < count; k++)
        {
            vec decay = NAME(exp2_of_product)(dt, rates[k], is_small);
            vec driven = input * NAME(broadcast)(B[k * state_stride]);
            state[k] = decay * state[k] + driven;
            y += state[k] * NAME(broadcast)(C[k * state_stride]);
        }
        ys[t] = y;
        B += step_stride;
        C += step_stride;
    }
    UNROLL for (int k = 0; k < count; k++)
        chunk->state[n + k] = state[k];
}

/* Functions of their own: constants keep the states in registers. */
#define DEFINE_ADVANCE(name, count, is_path)                                \
    static NOINLINE void NAME(name)(const NAME(forward_chunk) * chunk,      \
                                    int64_t n, int64_t begin, int64_t end)  \
    {                                                                       \
        if (chunk->has_small_exponents)                                     \
            NAME(advance)(chunk, n, count, is_path, 1, begin, end);         \
        else                                                                \
            NAME(advance)(chunk, n, count, is_path, 0, begin, end);         \
    }
DEFINE_ADVANCE(advance_8, 8, 0)
DEFINE_ADVANCE(advance_4, 4, 0)
DEFINE_ADVANCE(advance_1, 1, 0)
DEFINE_ADVANCE(advance_path_8, 8, 1)
DEFINE_ADVANCE(advance_path_4, 4, 1)
DEFINE_ADVANCE(advance_path_1, 1, 1)
#undef DEFINE_ADVANCE

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

/* Copies steps [start, start + steps) of B and C. */
static void NAME(load_projections)(const scan_call *call,
                                   const channel_block *block, int64_t start,
                                   int64_t steps,
                                   const NAME(forward_chunk) *chunk)
{
    const real *B = (const real *)call->B + block->batch * call->B_batch +
                    block->group * call->B_group + start;
    const real *C = (const real *)call->C + block->batch * call->C_batch +
                    block->group * call->C_group + start;
    NAME(copy_rows)(B, call->B_state, call->n_states, steps, CHUNK_STEPS,
                    chunk->B);
    NAME(copy_rows)(C, call->C_state, call->n_states, steps, CHUNK_STEPS,
                    chunk->C);
}

INLINE NAME(channel_rows) NAME(u_rows)(const scan_call *call,
                                       const channel_block *block,
                                       int64_t start)
{
    return NAME(at_step)(
        NAME(get_rows)(call->u, call->u_batch, call->u_row, block), start);
}

INLINE NAME(channel_rows) NAME(delta_rows)(const scan_call *call,
                                           const channel_block *block,
                                           int64_t start)
{
    return NAME(at_step)(NAME(get_rows)(call->delta, call->delta_batch,
                                        call->delta_row, block),
                         start);
}

/* Loads steps [start, start + steps) and computes dt, input and D * u. */
static void NAME(load_forward)(const scan_call *call,
                               const channel_block *block, int64_t start,
                               int64_t steps, NAME(forward_chunk) *chunk)
{
    const vec D = NAME(load_parameter)(call->D, block);
    const vec bias = NAME(load_parameter)(call->delta_bias, block);
    NAME(load_channels)(NAME(u_rows)(call, block, start), block->n_channels,
                        steps, chunk->y);
    NAME(load_channels)(NAME(delta_rows)(call, block, start),
                        block->n_channels, steps, chunk->dt);
    const vec longest =
        NAME(delta_to_dt)(call, bias, steps, chunk->next_u, chunk->y,
                          chunk->dt, chunk->input, NULL);
    chunk->has_small_exponents =
        NAME(exponents_are_small)(longest, chunk->steepest);
    for (int64_t t = 0; t < steps; t++)
        chunk->y[t] *= D;
}

/* One chunk of one block, from loading to storing. */
static void NAME(forward_chunk_of)(const scan_call *call,
                                   const channel_block *block, int64_t start,
                                   int64_t steps, NAME(forward_chunk) *chunk)
{
    const int64_t n_states = call->n_states, length = call->length;
    const int64_t saved_size = n_states * block->n_channels;
    const NAME(channel_rows) y = NAME(at_step)(
        NAME(get_rows)(call->y, call->dim * length, length, block), start);
    NAME(load_forward)(call, block, start, steps, chunk);
    chunk->y_rows = y;
    if (call->states == NULL) {
        NAME(advance_all)(chunk, n_states, 0, steps);
    } else {
        real *saved = (real *)call->states +
                      saved_states_offset(call, block) +
                      start / SAVED_EVERY * saved_size;
        for (int64_t t = 0; t < steps; t += SAVED_EVERY) {
            NAME(save_states)(chunk->state, n_states, block->n_channels,
                              saved);
            saved += saved_size;
            NAME(advance_all)(chunk, n_states, t,
                              smaller(t + SAVED_EVERY, steps));
        }
    }
    NAME(store_channels)(y, block->n_channels, steps, chunk->y);
}

/* Neighbouring blocks of one group, chunk by chunk: what is copied of B and C
 * serves them all. */
static void NAME(forward_task)(const void *context, int64_t task,
                               void *scratch)
{
    const forward_plan *plan = context;
    const scan_call *call = plan->call;
    const int64_t n_states = call->n_states, length = call->length;
    const int64_t sequence = task / plan->n_parts;
    const int64_t n_blocks = blocks_per_group(call, LANES);
    const int64_t first = n_blocks * (task % plan->n_parts) / plan->n_parts;
    const int64_t end =
        n_blocks * (task % plan->n_parts + 1) / plan->n_parts;
    channel_block blocks[MAX_SHARED_BLOCKS];
    NAME(forward_chunk) chunks[MAX_SHARED_BLOCKS];
    for (int64_t i = 0; i < end - first; i++) {
        blocks[i] =
            get_block(call, sequence / call->n_groups,
                      sequence % call->n_groups, first + i, LANES);
        chunks[i] = NAME(lay_out_forward)(scratch, n_states, i);
        chunks[i].steepest =
            NAME(load_rates)(call, &blocks[i], chunks[i].rates);
        for (int64_t n = 0; n < n_states; n++)
            chunks[i].state[n] = (vec){0};
    }
    for (int64_t start = 0; start < length; start += CHUNK_STEPS) {
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        NAME(load_projections)(call, &blocks[0], start, steps, &chunks[0]);
        for (int64_t i = 0; i < end - first; i++) {
            const int is_last = i + 1 == end - first;
            const channel_block *next = &blocks[is_last ? 0 : i + 1];
            const int64_t next_start = start + (is_last ? CHUNK_STEPS : 0);
            chunks[i].next_u = NAME(u_rows)(call, next, next_start);
            chunks[i].next_delta = NAME(delta_rows)(call, next, next_start);
            NAME(forward_chunk_of)(call, &blocks[i], start, steps,
                                   &chunks[i]);
        }
    }
}

static int NAME(forward)(const scan_call *call)
{
    const forward_plan plan = plan_forward(call, LANES);
    return run_tasks(NAME(forward_task), &plan,
                     plan.n_sequences * plan.n_parts, call->n_threads,
                     NAME(forward_scratch_size)(call->n_states));
}
