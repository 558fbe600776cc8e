/* Everything that exists once per instruction set; see vector.h. */
#include "vector.h"

#include "lanes.h"

#include "probe.h"

#include "rows.h"

#include "forward.h"

#include "paths.h"

#include "backward_segment.h"

#include "backward.h"

#include "paths_backward.h"

#include "gate.h"

#include "mean_gate.h"

#include "merge.h"

#include "batch_norm.h"

#undef real
#undef lane_int
#undef vec
#undef ivec
#undef unaligned_vec
#undef SMALL_EXPONENT
#undef OVER_PARTS
#undef LANE_PAIRS
#undef LANE_HALVES
#undef LANE_QUADS
#undef LANE_EVERY_OTHER_QUAD
#undef LANE_LIST
#undef SHUFFLE
#undef GROUP
#undef SEGMENT_VECTORS
#undef LANES
#undef LARGE_STATE_GROUP
#undef NAME
