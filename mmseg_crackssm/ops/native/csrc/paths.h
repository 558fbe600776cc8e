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
    real *numbers;           /* [step][rank dt, then B, then C] copied */
} NAME(path_block);

INLINE int64_t NAME(projected_width)(const path_call *call)
{
    return call->rank + 2 * call->n_states;
}

static size_t NAME(path_scratch_size)(const path_call *call)
{
    size_t per_block = 2 * (size_t)call->n_states + (size_t)call->rank;
    return (3 * STEP_ARRAY + MAX_SHARED_BLOCKS * per_block) * sizeof(vec) +
           (size_t)NAME(projected_width)(call) * CHUNK_STEPS * sizeof(real);
}

/* A chunk as in forward.h, with B and C in the copied rows. For the block at
 * this index among those that share these; rates, states and weights are its
 * own, all else is overwritten by the next one. */
INLINE NAME(forward_chunk)
    NAME(lay_out_path)(const path_call *call, void *scratch, int64_t index,
                       NAME(path_block) *block)
{
    const int64_t n_states = call->n_states, rank = call->rank;
    const int64_t per_block = 2 * n_states + rank;
    NAME(forward_chunk) chunk = {0};
    chunk.dt = scratch;
    chunk.input = chunk.dt + STEP_ARRAY;
    chunk.y = chunk.input + STEP_ARRAY;
    vec *own = chunk.y + STEP_ARRAY;
    block->numbers = (real *)(own + MAX_SHARED_BLOCKS * per_block);
    chunk.rates = own + index * per_block;
    chunk.state = chunk.rates + n_states;
    block->weights = chunk.state + n_states;
    chunk.B = block->numbers + rank;
    chunk.C = chunk.B + n_states;
    chunk.step_stride = NAME(projected_width)(call);
    return chunk;
}

INLINE void NAME(copy_numbers)(const real *from, int64_t count, real *to)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        NAME(store)(to + i, NAME(load)(from + i));
    for (; i < count; i++)
        to[i] = from[i];
}

/* Copies `steps` steps of `projected`, for all blocks that share them. */
static void NAME(copy_projected)(const NAME(path_block) *block,
                                 const int64_t *path, int64_t steps)
{
    const int64_t width = NAME(projected_width)(block->call);
    for (int64_t t = 0; t < steps; t++)
        NAME(copy_numbers)(block->projected +
                               path[t] * block->projected_stride,
                           width, block->numbers + t * width);
}

/* Loads `steps` steps of the path and computes dt, input and D * u. */
static void NAME(load_path)(const NAME(path_block) *block,
                            const int64_t *path, int64_t steps,
                            NAME(forward_chunk) *chunk)
{
    const int64_t rank = block->call->rank;
    const int64_t width = NAME(projected_width)(block->call);
    const real *numbers = block->numbers;
    vec longest = {0};
    for (int64_t t = 0; t < steps; t++, numbers += width) {
        vec u = NAME(load_part)(block->tokens +
                                    path[t] * block->token_stride,
                                block->n_channels);
        vec delta = block->bias;
        for (int64_t r = 0; r < rank; r++)
            delta += block->weights[r] * NAME(broadcast)(numbers[r]);
        vec dt = NAME(softplus)(delta, NAME(exp_minus_abs)(delta));
        longest = NAME(max)(dt, longest);
        chunk->dt[t] = dt;
        chunk->input[t] = dt * u;
        chunk->y[t] = block->D * u;
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
    const int64_t width = NAME(projected_width)(call);
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

/* One chunk of one block, from loading to storing. */
static void NAME(path_chunk_of)(const NAME(path_block) *block,
                                const int64_t *path, int64_t steps,
                                real *saved, NAME(forward_chunk) *chunk)
{
    const int64_t n_states = block->call->n_states;
    const int64_t segment = saved != NULL ? SAVED_EVERY : CHUNK_STEPS;
    NAME(load_path)(block, path, steps, chunk);
    for (int64_t t = 0; t < steps; t += segment) {
        if (saved != NULL) {
            NAME(save_states)(chunk->state, n_states, block->n_channels,
                              saved);
            saved += n_states * block->n_channels;
        }
        NAME(advance_path_all)(chunk, n_states, t,
                               smaller(t + segment, steps));
    }
    NAME(store_path)(block, path, steps, chunk->y);
}

/* Neighbouring blocks along one path, chunk by chunk: what is copied of
 * `projected` serves them all. */
static void NAME(run_path)(const path_call *call, int64_t batch,
                           int64_t first_block, int64_t n_blocks,
                           int64_t path, void *scratch)
{
    const int64_t n_states = call->n_states, length = call->length;
    NAME(path_block) blocks[MAX_SHARED_BLOCKS];
    NAME(forward_chunk) chunks[MAX_SHARED_BLOCKS];
    real *saved[MAX_SHARED_BLOCKS];
    for (int64_t i = 0; i < n_blocks; i++) {
        const channel_block channels =
            NAME(get_channels)(call, batch, first_block + i);
        NAME(path_block) *block = &blocks[i];
        *block = NAME(get_path_block)(call, &channels, path);
        block->y =
            (real *)call->y + NAME(output_offset)(call, &channels, path);
        block->y_stride = NAME(output_stride)(call);
        block->accumulates = call->merges && path > 0;
        chunks[i] = NAME(lay_out_path)(call, scratch, i, block);
        chunks[i].steepest = NAME(load_path_parameters)(
            call, &channels, path, block, chunks[i].rates);
        for (int64_t n = 0; n < n_states; n++)
            chunks[i].state[n] = (vec){0};
        saved[i] = NAME(saved_path_states)(call, &channels, path);
    }
    for (int64_t start = 0; start < length; start += CHUNK_STEPS) {
        const int64_t *tokens = blocks[0].path + start;
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        const int64_t steps_ahead = length - start - CHUNK_STEPS;
        NAME(copy_projected)(&blocks[0], tokens, steps);
        for (int64_t i = 0; i < n_blocks; i++) {
            const int is_last = i + 1 == n_blocks;
            const NAME(path_block) *next = &blocks[is_last ? 0 : i + 1];
            chunks[i].ahead = (NAME(path_ahead)){
                .path = tokens + (is_last ? CHUNK_STEPS : 0),
                .steps = is_last ? steps_ahead : steps,
                .tokens = next->tokens,
                .y = next->y,
                .token_stride = next->token_stride,
                .y_stride = next->y_stride,
                .later_path = tokens + CHUNK_STEPS,
                .later_steps = i == 0 ? steps_ahead : 0,
                .projected = next->projected,
                .projected_stride = next->projected_stride,
                .projected_width = NAME(projected_width)(call),
            };
            real *place = saved[i];
            if (place != NULL)
                place += start / SAVED_EVERY * n_states *
                         blocks[i].n_channels;
            NAME(path_chunk_of)(&blocks[i], tokens, steps, place,
                                &chunks[i]);
        }
    }
}

/* Paths whose results are added up belong to one task, in their order. */
static void NAME(path_task)(const void *context, int64_t task, void *scratch)
{
    const path_plan *plan = context;
    const path_call *call = plan->call;
    const int64_t n_blocks = divide_up(call->dim, LANES);
    const int64_t part = task % plan->n_parts, rest = task / plan->n_parts;
    const int64_t first = n_blocks * part / plan->n_parts;
    const int64_t end = n_blocks * (part + 1) / plan->n_parts;
    const int64_t first_path = rest % plan->n_separate;
    const int64_t end_path = call->merges ? call->n_paths : first_path + 1;
    for (int64_t path = first_path; path < end_path; path++)
        NAME(run_path)(call, rest / plan->n_separate, first, end - first,
                       path, scratch);
}

static int NAME(run_paths)(const path_call *call)
{
    const path_plan plan = plan_paths(call, LANES);
    return run_tasks(NAME(path_task), &plan,
                     call->batch * plan.n_separate * plan.n_parts,
                     call->n_threads, NAME(path_scratch_size)(call));
}
