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
    const vec longest =
        NAME(delta_to_dt)(call, bias, steps, next_delta, chunk->u, chunk->dt,
                          chunk->input, chunk->slope);
    chunk->has_small_exponents =
        NAME(exponents_are_small)(longest, chunk->steepest);
    for (int64_t t = 0; t < steps; t++)
        NAME(prefetch)(next_u, t);
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

    chunk.steepest = NAME(load_rates)(call, block, chunk.rates);
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
        return CALL_NO_MEMORY;
    plan.more_dC = (real *)plan.more_dB + more;
    int status = run_tasks(NAME(backward_task), &plan, n_tasks,
                           call->n_threads, scratch);
    if (status == CALL_OK)
        status = run_tasks(NAME(add_parts_task), &plan,
                           2 * plan.n_sequences, call->n_threads,
                           sizeof(vec));
    free(plan.more_dB);
    return status;
}
