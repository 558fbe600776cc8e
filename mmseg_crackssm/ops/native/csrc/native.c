/* The kernel for each instruction set, and the choice among them. */
#include "calls.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "blocks.h"
#include "parallel.h"

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define LOG2_OF_E 1.44269504088896340736
#define LN_OF_2 0.69314718055994530942

/* `kernel.h` is compiled once per instruction set within one binary: plain C
 * left to the compiler's own vectoriser is three to five times slower. */
#define REAL_IS_DOUBLE 0

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(                                              \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define LANES 16
#define LARGE_STATE_GROUP 1 /* 32 registers hold 8 states and their rates */
#define NAME(x) x##_avx512
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LANES 8
#define LARGE_STATE_GROUP 0
#define NAME(x) x##_avx2
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif /* __x86_64__ */

#define LANES 4
#define LARGE_STATE_GROUP 0
#define NAME(x) x##_baseline
#include "kernel.h"

#undef REAL_IS_DOUBLE
#define REAL_IS_DOUBLE 1
#define LANES 4
#define LARGE_STATE_GROUP 0
#define NAME(x) x##_double
#include "kernel.h"

static int best_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return LEVEL_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return LEVEL_AVX2;
#endif
    return LEVEL_BASELINE;
}

static int current_level;

__attribute__((constructor)) static void choose_level(void)
{
    current_level = best_level();
}

EXPORT int native_interface_version(void) { return NATIVE_INTERFACE_VERSION; }

/* The level in use. */
EXPORT int native_level(void) { return current_level; }

/* Switches to another level that this processor has; -1: to its best one.
 * Returns the level in use. Saved states are good for their own level only.
 */
EXPORT int native_set_level(int level)
{
    int best = best_level();
    if (level < 0)
        current_level = best;
    else if (level <= best)
        current_level = level;
    return current_level;
}

EXPORT int native_has_threads(void) { return have_threads(); }

EXPORT int scan_saved_every(void) { return SAVED_EVERY; }

EXPORT int gated_norm_task_rows(void) { return GATE_ROWS; }

static int is_sound(const scan_call *call)
{
    return call->batch > 0 && call->dim > 0 && call->length > 0 &&
           call->n_states > 0 && call->n_groups > 0 &&
           call->dim % call->n_groups == 0 && call->n_threads > 0;
}

/* `name` of the level in use, on this call. */
#if defined(__x86_64__)
#define ON_CURRENT_LEVEL(name, ...)                                   \
    (current_level == LEVEL_AVX512 ? name##_avx512(__VA_ARGS__)        \
     : current_level == LEVEL_AVX2 ? name##_avx2(__VA_ARGS__)          \
                                  : name##_baseline(__VA_ARGS__))
#else
#define ON_CURRENT_LEVEL(name, ...) name##_baseline(__VA_ARGS__)
#endif

/* `name` in float, on the level in use, and `name`_double: `run` on calls of
 * this type that are sound. */
#define EXPORT_CALL(name, run, call_type, call_is_sound)              \
    EXPORT int name(const call_type *call)                            \
    {                                                                 \
        return call_is_sound(call) ? ON_CURRENT_LEVEL(run, call)      \
                                   : CALL_IS_BAD;                   \
    }                                                                 \
    EXPORT int name##_double(const call_type *call)                   \
    {                                                                 \
        return call_is_sound(call) ? run##_double(call) : CALL_IS_BAD; \
    }

EXPORT_CALL(scan, forward, scan_call, is_sound)
EXPORT_CALL(scan_backward, backward, scan_call, is_sound)

static int paths_are_sound(const path_call *call)
{
    if (call->batch < 1 || call->dim < 1 || call->length < 1 ||
        call->n_states < 1 || call->n_paths < 1 || call->rank < 0 ||
        call->n_threads < 1)
        return 0;
    int64_t sets = call->paths_batch == 0 ? 1 : call->batch;
    int is_outside = 0;
    for (int64_t i = 0; i < sets * call->n_paths * call->length; i++)
        is_outside |= (uint64_t)call->paths[i] >= (uint64_t)call->length;
    return !is_outside;
}

EXPORT_CALL(scan_paths, run_paths, path_call, paths_are_sound)
EXPORT_CALL(scan_paths_backward, run_paths_backward, path_call,
            paths_are_sound)

static int gate_is_sound(const gate_call *call)
{
    return call->rows > 0 && call->channels > 0 && call->n_threads > 0;
}

EXPORT_CALL(gated_norm, run_gate, gate_call, gate_is_sound)
EXPORT_CALL(gated_norm_backward, run_gate_backward, gate_call, gate_is_sound)

static int merge_is_sound(const merge_call *call)
{
    return call->batch > 0 && call->height > 0 && call->width > 0 &&
           call->out_height > 0 && call->out_width > 0 &&
           call->x_channels > 0 && call->skip_channels >= 0 &&
           call->n_threads > 0;
}

EXPORT_CALL(upsample_concat, run_merge, merge_call, merge_is_sound)
EXPORT_CALL(upsample_concat_backward, run_merge_backward, merge_call,
            merge_is_sound)

static int batch_norm_is_sound(const batch_norm_call *call)
{
    return call->rows > 0 && call->channels > 0 && call->n_threads > 0;
}

EXPORT_CALL(batch_norm_relu, run_batch_norm_relu, batch_norm_call,
            batch_norm_is_sound)
EXPORT_CALL(batch_norm_relu_backward, run_batch_norm_relu_backward,
            batch_norm_call, batch_norm_is_sound)

static int mean_gate_is_sound(const mean_gate_call *call)
{
    return call->batch > 0 && call->groups > 0 && call->channels > 0 &&
           call->hidden > 0 && call->pixels > 0 && call->n_threads > 0;
}

EXPORT_CALL(mean_gate, run_mean_gate, mean_gate_call, mean_gate_is_sound)
EXPORT_CALL(mean_gate_backward, run_mean_gate_backward, mean_gate_call,
            mean_gate_is_sound)

/* Computes exponentials in this level's vectors, for timing: on each thread
 * `n_repeats` times as many as fit the first-level cache. Returns their
 * number, 0 for bad sizes or where memory is missing. */
EXPORT int64_t native_probe_exp(int64_t n_repeats, int64_t n_threads)
{
    if (n_repeats < 1 || n_threads < 1)
        return 0;
    return ON_CURRENT_LEVEL(probe_exp, n_repeats, n_threads);
}
