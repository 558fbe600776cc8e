/* Independent tasks on the threads of whichever OpenMP runtime torch has. */
#ifndef MMSEG_CRACKSSM_PARALLEL_H
#define MMSEG_CRACKSSM_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/* Runs one task; ``scratch`` is private to the thread and 64-byte aligned. */
typedef void (*task_function)(const void *context, int64_t task,
                              void *scratch);

/* Runs tasks 0 .. n_tasks-1, each once and in no particular order.
 * Returns CALL_OK, or CALL_NO_MEMORY when no thread got its scratch. */
int run_tasks(task_function function, const void *context, int64_t n_tasks,
              int64_t n_threads, size_t scratch_bytes);

/* Whether run_tasks has an OpenMP runtime to use in this process. */
int have_threads(void);

#endif
