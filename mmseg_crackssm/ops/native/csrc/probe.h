/* How fast this processor can compute what the scan spends its time on: the
 * limit that measurements are held against. A template like vector.h; double
 * is for checks and has no limit of interest. */
#if !REAL_IS_DOUBLE

/* Exponentials per repetition: input and output fit the first-level cache
 * together. */
#define PROBE_NUMBERS 2048

static void NAME(probe_exp_task)(const void *context, int64_t task,
                                 void *scratch)
{
    const int64_t n_repeats = *(const int64_t *)context;
    real *from = scratch, *to = from + PROBE_NUMBERS;
    (void)task;
    /* decays as the scan has them: between 0 and 1 */
    for (int64_t i = 0; i < PROBE_NUMBERS; i++)
        from[i] = (real)-8 * (real)i / PROBE_NUMBERS;
    for (int64_t r = 0; r < n_repeats; r++) {
        for (int64_t i = 0; i < PROBE_NUMBERS; i += LANES) {
            vec x = NAME(load)(from + i);
            NAME(store)(to + i, NAME(exp2_of_product)(
                                    x, NAME(broadcast)(1), 1));
        }
        /* Each repetition counts as one that may have seen other numbers. */
        __asm__ volatile("" : : "r"(from), "r"(to) : "memory");
    }
}

/* The number of exponentials computed, 0 where memory is missing. */
static int64_t NAME(probe_exp)(int64_t n_repeats, int64_t n_threads)
{
    int status = run_tasks(NAME(probe_exp_task), &n_repeats, n_threads,
                           n_threads, 2 * PROBE_NUMBERS * sizeof(real));
    return status == CALL_OK ? n_repeats * n_threads * PROBE_NUMBERS : 0;
}

#undef PROBE_NUMBERS

#endif
