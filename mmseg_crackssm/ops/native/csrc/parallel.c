#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "calls.h"

/* What GCC makes of `#pragma omp parallel`. LLVM's and Intel's runtimes
 * export it too. Linking with -fopenmp would tie this library to one runtime
 * by name and so might load a second one beside torch's, with a second pool
 * of threads; a weak symbol binds to the one that torch has already loaded,
 * and is NULL without one: the work then stays on the calling thread. */
extern void GOMP_parallel(void (*function)(void *), void *data,
                          unsigned n_threads, unsigned flags)
    __attribute__((weak));

typedef struct {
    task_function function;
    const void *context;
    int64_t n_tasks;
    size_t scratch_bytes;
    atomic_llong next_task;
    atomic_llong done_tasks;
} task_queue;

/* An OpenMP runtime does not survive fork(): its threads are gone in the
 * child, and the first parallel region there would wait for them forever.
 * DataLoader workers are such children. */
static atomic_int in_forked_child;

static void mark_forked_child(void) { atomic_store(&in_forked_child, 1); }

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, mark_forked_child);
}

int have_threads(void)
{
    return GOMP_parallel != NULL && !atomic_load(&in_forked_child);
}

/* Denormal numbers make every operation on them some twenty times slower,
 * and states that decay towards zero pass through them. So this thread
 * flushes them to zero, during its tasks only. */
static unsigned flush_denormals(void)
{
#if defined(__x86_64__)
    const unsigned flush_to_zero = 0x8000, denormals_are_zero = 0x0040;
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | flush_to_zero | denormals_are_zero);
    return saved;
#else
    return 0;
#endif
}

static void restore_denormals(unsigned saved)
{
#if defined(__x86_64__)
    _mm_setcsr(saved);
#else
    (void)saved;
#endif
}

static void work_on_queue(void *data)
{
    task_queue *queue = data;
    void *scratch = NULL;
    if (posix_memalign(&scratch, 64, queue->scratch_bytes) != 0)
        return; /* the other threads take over this one's share */
    unsigned saved = flush_denormals();
    for (;;) {
        int64_t task = atomic_fetch_add(&queue->next_task, 1);
        if (task >= queue->n_tasks)
            break;
        queue->function(queue->context, task, scratch);
        atomic_fetch_add(&queue->done_tasks, 1);
    }
    restore_denormals(saved);
    free(scratch);
}

int run_tasks(task_function function, const void *context, int64_t n_tasks,
              int64_t n_threads, size_t scratch_bytes)
{
    task_queue queue = {
        .function = function,
        .context = context,
        .n_tasks = n_tasks,
        .scratch_bytes = scratch_bytes,
    };
    atomic_init(&queue.next_task, 0);
    atomic_init(&queue.done_tasks, 0);
    /* Always the whole team, even for fewer tasks: a runtime that is asked
     * for another size ends some of its threads and starts them anew. */
    if (n_threads > 1 && n_tasks > 1 && have_threads())
        GOMP_parallel(work_on_queue, &queue, (unsigned)n_threads, 0);
    else
        work_on_queue(&queue);
    return atomic_load(&queue.done_tasks) == n_tasks ? CALL_OK
                                                     : CALL_NO_MEMORY;
}
