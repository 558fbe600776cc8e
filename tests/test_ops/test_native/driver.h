/* What the parts of the driver share. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdint.h>

/* From 0 to 1, and from 1 to `most`. */
double draw(void);
int64_t draw_up_to(int64_t most);

/* A heap block of exactly n numbers. */
void *make(int64_t n, int is_double, double low, double high);

/* Puts numbers in that are not finite, or almost. */
void spoil(void *array, int64_t n, int is_double);

/* The sum of absolute values. */
double sum(const void *array, int64_t n, int is_double);

/* Rows of `length` numbers; no gap follows the last one. */
int64_t rows_size(int64_t rows, int64_t length, int64_t stride);

/* A fixed grid of shapes: its checksum; and one random call of each. */
double run_scan_grid(int is_double);
void run_scan_random(int is_double);
double run_maps_grid(int is_double);
void run_maps_random(int is_double);

#endif
