/* S6 along several paths over one set of tokens. A template like vector.h.
 *
 * Tokens lie side by side, their channels together: one vector is one line of
 * memory, whichever token the path visits next, so that nothing is transposed
 * and no reordered copy is made. The step sizes are made here as well, from
 * their low-rank projection. */

/* What one block of channels needs of one path, beside the chunk. */
typedef struct {
    const path_call *call;
    const int64_t *path;     /* the token of each step */
    const real *tokens;      /* this block's channels of the first token */
    const real *projected;   /* this path's row of the first token */
    real *y;                 /* this block's channels of the first token */
    int64_t token_stride, projected_stride, y_stride;
    int64_t n_channels;
    int accumulates;         /* y holds the sum over earlier paths */
    vec bias, D;
    vec *weights;            /* [rank] of the step size */
} NAME(path_block);

/* A chunk as in forward.h, with B and C together: [step][2][state]. */
static size_t NAME(path_scratch_size)(const path_call *call)
{
    size_t n = (size_t)call->n_states;
    return (3 * STEP_ARRAY + 2 * n + (size_t)call->rank) * sizeof(vec) +
           2 * n * CHUNK_STEPS * sizeof(real);
}

INLINE NAME(forward_chunk)
    NAME(lay_out_path)(const path_call *call, void *scratch,
                       NAME(path_block) *block)
{
    const int64_t n_states = call->n_states;
    NAME(forward_chunk) chunk = {0};
    chunk.dt = scratch;
    chunk.input = chunk.dt + STEP_ARRAY;
    chunk.y = chunk.input + STEP_ARRAY;
    chunk.rates = chunk.y + STEP_ARRAY;
    chunk.state = chunk.rates + n_states;
    block->weights = chunk.state + n_states;
    chunk.B = (real *)(block->weights + call->rank);
    chunk.C = chunk.B + n_states;
    chunk.step_stride = 2 * n_states;
    return chunk;
}

/* The lines of an input that a later chunk reads: the processor foresees the
 * rows of an image, not its columns or a sorted path. */
INLINE void NAME(prefetch_token)(const NAME(path_block) *block, int64_t token)
{
    const real *row = block->projected + token * block->projected_stride;
    const int64_t width = block->call->rank + 2 * block->call->n_states;
    __builtin_prefetch(block->tokens + token * block->token_stride, 0, 3);
    for (int64_t i = 0; i < width; i += 64 / (int64_t)sizeof(real))
        __builtin_prefetch(row + i, 0, 3);
    __builtin_prefetch(row + width - 1, 0, 3);
}

INLINE void NAME(copy_numbers)(const real *from, int64_t count, real *to)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        NAME(store)(to + i, NAME(load)(from + i));
    for (; i < count; i++)
        to[i] = from[i];
}

/* Loads `steps` steps of the path and computes dt, input and D * u. */
static void NAME(load_path)(const NAME(path_block) *block,
                            const int64_t *path, int64_t steps,
                            int64_t steps_ahead, NAME(forward_chunk) *chunk)
{
    const path_call *call = block->call;
    const int64_t rank = call->rank, n_states = call->n_states;
    vec longest = {0};
    for (int64_t t = 0; t < steps; t++) {
        const real *row =
            block->projected + path[t] * block->projected_stride;
        vec u = NAME(load_part)(block->tokens +
                                    path[t] * block->token_stride,
                                block->n_channels);
        vec delta = block->bias;
        for (int64_t r = 0; r < rank; r++)
            delta += block->weights[r] * NAME(broadcast)(row[r]);
        vec dt = NAME(softplus)(delta, NAME(exp_minus_abs)(delta));
        longest = NAME(max)(dt, longest);
        chunk->dt[t] = dt;
        chunk->input[t] = dt * u;
        chunk->y[t] = block->D * u;
        NAME(copy_numbers)(row + rank, 2 * n_states,
                           chunk->B + t * 2 * n_states);
        if (t < steps_ahead) {
            const int64_t later = path[t + CHUNK_STEPS];
            NAME(prefetch_token)(block, later);
            __builtin_prefetch(block->y + later * block->y_stride, 1, 3);
        }
    }
    chunk->has_small_exponents =
        NAME(exponents_are_small)(longest, chunk->steepest);
}

static void NAME(store_path)(const NAME(path_block) *block,
                             const int64_t *path, int64_t steps,
                             const vec *ys)
{
    for (int64_t t = 0; t < steps; t++) {
        real *to = block->y + path[t] * block->y_stride;
        vec y = ys[t];
        if (block->accumulates)
            y += NAME(load_part)(to, block->n_channels);
        NAME(store_part)(to, y, block->n_channels);
    }
}

/* The parameters of one block on one path. Returns what load_rates does. */
static vec NAME(load_path_parameters)(const path_call *call,
                                       const channel_block *channels,
                                       int64_t path, NAME(path_block) *block,
                                       vec *rates)
{
    const scan_call parameters = {
        .A = call->A, .A_row = call->n_states, .n_states = call->n_states};
    const channel_block place = {
        .first_channel = path * call->dim + channels->first_channel,
        .n_channels = channels->n_channels};
    const real *weights = (const real *)call->dt_weight +
                          place.first_channel * call->rank;
    block->bias = NAME(load_parameter)(call->dt_bias, &place);
    block->D = NAME(load_parameter)(call->D, &place);
    for (int64_t r = 0; r < call->rank; r++) {
        vec x = {0};
        for (int64_t j = 0; j < place.n_channels; j++)
            x[j] = weights[j * call->rank + r];
        block->weights[r] = x;
    }
    return NAME(load_rates)(&parameters, &place, rates);
}

/* All but the output. */
INLINE NAME(path_block)
    NAME(get_path_block)(const path_call *call,
                         const channel_block *channels, int64_t path)
{
    const int64_t width = call->rank + 2 * call->n_states;
    const int64_t first_token = channels->batch * call->length;
    return (NAME(path_block)){
        .call = call,
        .path = call->paths + channels->batch * call->paths_batch +
                path * call->length,
        .tokens = (const real *)call->tokens + first_token * call->dim +
                  channels->first_channel,
        .projected = (const real *)call->projected +
                     (first_token * call->n_paths + path) * width,
        .token_stride = call->dim,
        .projected_stride = call->n_paths * width,
        .n_channels = channels->n_channels,
    };
}

/* Numbers between two tokens of y and dy, and from their start to a block. */
INLINE int64_t NAME(output_stride)(const path_call *call)
{
    return (call->merges ? 1 : call->n_paths) * call->dim;
}

INLINE int64_t NAME(output_offset)(const path_call *call,
                                   const channel_block *channels,
                                   int64_t path)
{
    return channels->batch * call->length * NAME(output_stride)(call) +
           (call->merges ? 0 : path) * call->dim + channels->first_channel;
}

INLINE channel_block NAME(get_channels)(const path_call *call, int64_t batch,
                                        int64_t index)
{
    return (channel_block){
        .batch = batch,
        .first_channel = index * LANES,
        .n_channels = smaller(call->dim - index * LANES, LANES),
    };
}

/* Where the saved states of a block on a path begin: the paths' channels one
 * after the other, as those of groups are in a scan. */
INLINE real *NAME(saved_path_states)(const path_call *call,
                                     const channel_block *channels,
                                     int64_t path)
{
    const scan_call shape = {.dim = call->n_paths * call->dim,
                             .length = call->length,
                             .n_states = call->n_states};
    const channel_block place = {
        .batch = channels->batch,
        .first_channel = path * call->dim + channels->first_channel};
    if (call->states == NULL)
        return NULL;
    return (real *)call->states + saved_states_offset(&shape, &place);
}

static void NAME(advance_path_all)(const NAME(forward_chunk) *chunk,
                                   int64_t n_states, int64_t begin,
                                   int64_t end)
{
    int64_t n = 0;
    if (LARGE_STATE_GROUP)
        for (; n + 8 <= n_states; n += 8)
            NAME(advance_path_8)(chunk, n, begin, end);
    for (; n + 4 <= n_states; n += 4)
        NAME(advance_path_4)(chunk, n, begin, end);
    for (; n < n_states; n++)
        NAME(advance_path_1)(chunk, n, begin, end);
}

static void NAME(run_path)(const path_call *call,
                           const channel_block *channels, int64_t path,
                           void *scratch)
{
    const int64_t n_states = call->n_states, length = call->length;
    NAME(path_block) block = NAME(get_path_block)(call, channels, path);
    block.y = (real *)call->y + NAME(output_offset)(call, channels, path);
    block.y_stride = NAME(output_stride)(call);
    block.accumulates = call->merges && path > 0;
    NAME(forward_chunk) chunk = NAME(lay_out_path)(call, scratch, &block);
    real *saved = NAME(saved_path_states)(call, channels, path);
    chunk.steepest = NAME(load_path_parameters)(call, channels, path, &block,
                                                chunk.rates);
    for (int64_t n = 0; n < n_states; n++)
        chunk.state[n] = (vec){0};
    for (int64_t start = 0; start < length; start += CHUNK_STEPS) {
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        const int64_t segment = saved != NULL ? SAVED_EVERY : CHUNK_STEPS;
        NAME(load_path)(&block, block.path + start, steps,
                        length - start - CHUNK_STEPS, &chunk);
        for (int64_t t = 0; t < steps; t += segment) {
            if (saved != NULL) {
                NAME(save_states)(chunk.state, n_states,
                                  channels->n_channels, saved);
                saved += n_states * channels->n_channels;
            }
            NAME(advance_path_all)(&chunk, n_states, t,
                                   smaller(t + segment, steps));
        }
        NAME(store_path)(&block, block.path + start, steps, chunk.y);
    }
}

/* Paths whose results are added up belong to one task, in their order. */
static void NAME(path_task)(const void *context, int64_t task, void *scratch)
{
    const path_call *call = context;
    const int64_t n_blocks = divide_up(call->dim, LANES);
    const int64_t index = task % n_blocks, rest = task / n_blocks;
    const int64_t n_separate = call->merges ? 1 : call->n_paths;
    const int64_t first_path = rest % n_separate;
    const int64_t end = call->merges ? call->n_paths : first_path + 1;
    const channel_block channels =
        NAME(get_channels)(call, rest / n_separate, index);
    for (int64_t path = first_path; path < end; path++)
        NAME(run_path)(call, &channels, path, scratch);
}

static int NAME(run_paths)(const path_call *call)
{
    const int64_t n_separate = call->merges ? 1 : call->n_paths;
    return run_tasks(NAME(path_task), call,
                     call->batch * n_separate * divide_up(call->dim, LANES),
                     call->n_threads, NAME(path_scratch_size)(call));
}
